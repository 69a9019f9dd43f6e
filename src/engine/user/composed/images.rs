//! The images of a layer as one thread reaches them: a connection of its own to each.

use std::path::Path;

use rustix::io::Errno;

use super::nbd::{Command, Connection, ConnectionError};
use super::transfers::Transfer;
use super::volume::{Images, Space};
use crate::layers::extent::ImageIndex;
use crate::names::NodeName;

/// A connection to each image. All requests are sent before the first answer is waited for, so that
/// the images work side by side.
#[derive(Debug)]
pub struct Connections {
    all: Vec<(ImageIndex, Connection)>,
    /// The bytes of a transfer of several parts.
    joined: Vec<u8>,
}

impl Connections {
    /// Connects to the export of each image.
    ///
    /// # Errors
    /// When the server cannot be reached, or does not export one of them.
    pub fn open(
        socket: &Path,
        exports: &[(ImageIndex, NodeName)],
    ) -> Result<Self, ConnectionError> {
        let mut all = Vec::new();
        for (image, export) in exports {
            all.push((*image, Connection::open(socket, export.as_str())?));
        }
        Ok(Self {
            all,
            joined: Vec::new(),
        })
    }

    fn send(
        &mut self,
        command: Command,
        index: usize,
        transfer: &Transfer,
        data: &[u8],
    ) -> Result<(), Errno> {
        let is_it = |known: &&mut (ImageIndex, Connection)| known.0 == transfer.image;
        let (_, connection) = self.all.iter_mut().find(is_it).ok_or(Errno::IO)?;
        let cookie = index as u64;
        connection.send(command, cookie, transfer.offset, transfer.length, data)
    }

    /// Sends a command without data for each transfer, and takes all answers.
    fn command(&mut self, command: Command, transfers: &[Transfer]) -> Result<(), Errno> {
        let mut outcome = Ok(());
        for (index, transfer) in transfers.iter().enumerate() {
            outcome = outcome.and(self.send(command, index, transfer, &[]));
        }
        outcome.and(self.answers(|_, _| Ok(())))
    }

    /// Takes the answers to all that was sent, whatever went wrong with some of it: what is left on
    /// a line would be taken for the answer to the next request. `taken` takes what follows an
    /// answer without an error.
    fn answers(
        &mut self,
        mut taken: impl FnMut(&mut Connection, u64) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut outcome = Ok(());
        for (_, connection) in &mut self.all {
            while connection.is_awaited() {
                let answered = connection.receive().and_then(|reply| match reply.error {
                    Some(error) => Err(error),
                    None => taken(connection, reply.cookie),
                });
                outcome = outcome.and(answered);
            }
        }
        outcome
    }
}

impl Images for Connections {
    fn read(&mut self, transfers: &[Transfer], buffer: &mut [u8]) -> Result<(), Errno> {
        let mut outcome = Ok(());
        for (index, transfer) in transfers.iter().enumerate() {
            outcome = outcome.and(self.send(Command::Read, index, transfer, &[]));
        }
        let mut joined = std::mem::take(&mut self.joined);
        let answered = self.answers(|connection, cookie| {
            let index = usize::try_from(cookie).ok();
            let Some(transfer) = index.and_then(|index| transfers.get(index)) else {
                return Err(connection.give_up());
            };
            match transfer.parts.as_slice() {
                [part] => match buffer.get_mut(part.clone()) {
                    Some(part) => connection.take(part),
                    None => Err(connection.give_up()),
                },
                _ => {
                    joined.resize(transfer.length, 0);
                    connection.take(&mut joined)?;
                    transfer.scatter(&joined, buffer)
                }
            }
        });
        self.joined = joined;
        outcome.and(answered)
    }

    fn write(&mut self, transfers: &[Transfer], data: &[u8]) -> Result<(), Errno> {
        let mut outcome = Ok(());
        let mut joined = std::mem::take(&mut self.joined);
        for (index, transfer) in transfers.iter().enumerate() {
            let sent = match transfer.parts.as_slice() {
                [part] => {
                    let part = data.get(part.clone()).ok_or(Errno::IO);
                    part.and_then(|part| self.send(Command::Write, index, transfer, part))
                }
                _ => {
                    transfer.gather(data, &mut joined);
                    self.send(Command::Write, index, transfer, &joined)
                }
            };
            outcome = outcome.and(sent);
        }
        self.joined = joined;
        outcome.and(self.answers(|_, _| Ok(())))
    }

    fn zero(&mut self, transfers: &[Transfer], space: Space) -> Result<(), Errno> {
        let command = match space {
            Space::GivenBack => Command::Discard,
            Space::Kept => Command::Zero,
        };
        self.command(command, transfers)
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let mut outcome = Ok(());
        for (_, connection) in &mut self.all {
            let sent = connection.send(Command::Flush, 0, crate::units::Bytes::ZERO, 0, &[]);
            outcome = outcome.and(sent);
        }
        outcome.and(self.answers(|_, _| Ok(())))
    }
}
