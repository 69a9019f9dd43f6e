//! The keys that are tried on an encrypted device, one after the other.

use std::path::PathBuf;

use crate::cause;
use crate::interrupt::Interrupt;
use crate::keys::passphrase::Passphrase;
use crate::keys::selector::{KeySelector, SelectedKey};
use crate::keys::terminal::{NoAnswer, Terminal};

/// How often one is asked for the passphrase of a device.
const MOST_QUESTIONS: u32 = 3;

/// An encrypted device for which a key is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name, as a person knows it: `/dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0)`.
    pub shown: String,
    /// All that a `--key` may call it; the best first.
    pub ids: Vec<String>,
    /// The key file that the host has for it.
    pub file: Option<KeyFile>,
    /// Where the host would get its key from, if virt-fsck cannot: `the TPM`.
    pub elsewhere: Option<String>,
}

/// A key in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Where in it the key begins, in bytes.
    pub offset: Option<u64>,
    /// How long the key is, in bytes; to the end of the file if `None`.
    pub size: Option<u64>,
}

/// A key that may be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// In a file, which whoever opens the device reads.
    File(KeyFile),
    /// In memory.
    Passphrase(Passphrase),
}

/// No key opened the device.
#[derive(Debug, thiserror::Error)]
pub enum KeyError<E: std::error::Error + 'static> {
    /// None was right, or none was there: the sentence.
    #[error("{0}")]
    NoKey(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The device could not be tried.
    #[error(transparent)]
    Device(E),
}

/// All keys of a run.
#[derive(Debug, Default)]
pub struct Keys {
    selectors: Vec<KeySelector>,
    /// Passphrases that were typed and were right for a device.
    typed: Vec<Passphrase>,
    terminal: Terminal,
}

/// What has been tried on a device so far.
struct Trial<'a, F> {
    interrupt: &'a mut Interrupt,
    opens: F,
    /// Without success, each as a part of a sentence.
    tried: Vec<String>,
}

impl<F> Trial<'_, F> {
    async fn with<T, E>(&mut self, key: &Key) -> Result<Option<T>, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        if self.interrupt.is_raised() {
            return Err(KeyError::Interrupted);
        }
        (self.opens)(key).await.map_err(KeyError::Device)
    }
}

impl Keys {
    /// The keys of the command line.
    pub fn new(selectors: Vec<KeySelector>) -> Self {
        Self {
            selectors,
            ..Self::default()
        }
    }

    /// Calls `opens` with one key after the other until one is right, and gives what it has given
    /// for that: a `--key` that names the device, the host's own key file, a `--key` for all, passphrases that were typed for others
    /// before, and at last what is typed at the terminal.
    ///
    /// # Errors
    /// When no key was right, `opens` failed, or a signal came.
    pub async fn open<F, T, E>(
        &mut self,
        container: &Container,
        interrupt: &mut Interrupt,
        opens: F,
    ) -> Result<T, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        let mut trial = Trial {
            interrupt,
            opens,
            tried: Vec::new(),
        };
        let named = |selector: &&KeySelector| container.ids.contains(&selector.id);
        for selector in self.selectors.iter().filter(named) {
            if let Some(opened) = selected(selector, &mut trial).await? {
                return Ok(opened);
            }
        }
        if let Some(file) = &container.file {
            let shown = format!("the key file {}", file.path.display());
            match std::fs::File::open(&file.path) {
                Ok(_) => match trial.with(&Key::File(file.clone())).await? {
                    Some(opened) => return Ok(opened),
                    None => trial.tried.push(shown),
                },
                Err(error) => {
                    let why = cause::sentence(&error);
                    trial
                        .tried
                        .push(format!("{shown}, which cannot be read ({why})"));
                }
            }
        }
        for selector in self
            .selectors
            .iter()
            .filter(|selector| selector.is_for_all())
        {
            if let Some(opened) = selected(selector, &mut trial).await? {
                return Ok(opened);
            }
        }
        for passphrase in &self.typed {
            let key = Key::Passphrase(passphrase.clone());
            if let Some(opened) = trial.with(&key).await? {
                return Ok(opened);
            }
        }
        let (typed, opened) = self.ask(container, &mut trial).await?;
        self.typed.push(typed);
        Ok(opened)
    }

    /// Asks at the terminal until the answer is right.
    async fn ask<F, T, E>(
        &self,
        container: &Container,
        trial: &mut Trial<'_, F>,
    ) -> Result<(Passphrase, T), KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        let question = format!("Passphrase for {}: ", container.shown);
        for _ in 0..MOST_QUESTIONS {
            let answer = self.terminal.ask(&question, trial.interrupt).await;
            let passphrase = match answer {
                Ok(passphrase) => passphrase,
                Err(NoAnswer::Interrupted) => return Err(KeyError::Interrupted),
                Err(NoAnswer::NoTerminal) => {
                    return Err(no_key(
                        container,
                        &trial.tried,
                        Some("there is no terminal to ask at"),
                    ));
                }
                Err(NoAnswer::Failed(error)) => {
                    let why = match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => "no passphrase was typed".to_owned(),
                        _ => format!("the terminal cannot be read ({})", cause::sentence(&error)),
                    };
                    return Err(no_key(container, &trial.tried, Some(&why)));
                }
            };
            let key = Key::Passphrase(passphrase.clone());
            if let Some(opened) = trial.with(&key).await? {
                return Ok((passphrase, opened));
            }
        }
        trial
            .tried
            .push(format!("what was typed {MOST_QUESTIONS} times"));
        Err(no_key(container, &trial.tried, None))
    }
}

async fn selected<F, T, E>(
    selector: &KeySelector,
    trial: &mut Trial<'_, F>,
) -> Result<Option<T>, KeyError<E>>
where
    F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
    E: std::error::Error + 'static,
{
    let shown = match &selector.key {
        SelectedKey::Passphrase(passphrase) => {
            let key = Key::Passphrase(passphrase.clone());
            if let Some(opened) = trial.with(&key).await? {
                return Ok(Some(opened));
            }
            format!("the passphrase of --key {}", selector.id)
        }
        SelectedKey::File(path) => {
            let shown = format!("{} of --key {}", path.display(), selector.id);
            match Passphrase::of_file(path) {
                Ok(whole) => {
                    // guestfish takes a line; cryptsetup the file as it is.
                    let line = whole.without_newline();
                    for key in line.into_iter().chain([whole]) {
                        if let Some(opened) = trial.with(&Key::Passphrase(key)).await? {
                            return Ok(Some(opened));
                        }
                    }
                    shown
                }
                Err(error) => format!(
                    "{shown}, which cannot be read ({})",
                    cause::sentence(&error)
                ),
            }
        }
    };
    trial.tried.push(shown);
    Ok(None)
}

fn no_key<E: std::error::Error + 'static>(
    container: &Container,
    tried: &[String],
    no_answer: Option<&str>,
) -> KeyError<E> {
    let mut sentence = match tried {
        [] => format!("there is no key for {}", container.shown),
        tried => format!(
            "no key opens {}: not {}",
            container.shown,
            tried.join(", not ")
        ),
    };
    if let Some(elsewhere) = &container.elsewhere {
        sentence.push_str(&format!(
            "; the host takes its key from {elsewhere}, and virt-fsck cannot"
        ));
    }
    if let Some(reason) = no_answer {
        let id = container.ids.first().map_or("all", String::as_str);
        sentence.push_str(&format!(
            "; {reason}, so give --key {id}:file:FILE, or name a key file in crypttab"
        ));
    }
    KeyError::NoKey(sentence)
}

#[cfg(test)]
mod tests;
