use super::*;

/// A server that has said all it will say; what it is told is kept.
struct Server<'a> {
    says: &'a [u8],
    told: Vec<u8>,
}

impl Read for Server<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.says.read(buffer)
    }
}

impl Write for Server<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.told.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn greeting(flags: u16) -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
}

fn answer(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut answer = vec![0, 3, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9, 0, 0, 0, 7];
    answer.extend(kind.to_be_bytes());
    answer.extend((data.len() as u32).to_be_bytes());
    answer.extend(data);
    answer
}

fn talk(says: &[Vec<u8>]) -> (Result<u16, ConnectionError>, Vec<u8>) {
    let says = says.concat();
    let mut server = Server {
        says: &says,
        told: Vec::new(),
    };
    let outcome = negotiate(&mut server, "disk0");
    (outcome, server.told)
}

#[test]
fn an_export_is_asked_for_by_its_name() {
    // The size, then the flags of the transmission; before it something that nobody asked for.
    let export = [&[0, 0][..], &(1_u64 << 40).to_be_bytes(), &[0x0c, 0x6d]].concat();
    let (outcome, told) = talk(&[
        greeting(3),
        answer(3, &[0, 1, b'x']),
        answer(3, &export),
        answer(1, &[]),
    ]);
    assert_eq!(outcome.unwrap(), 0x0c6d);
    let expected = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0b\0\0\0\x05disk0\0\0";
    assert_eq!(told, expected);
}

#[test]
fn a_server_that_refuses_or_talks_nonsense_is_named() {
    for (says, words) in [
        (vec![b"SSH-2.0-OpenSSH_9.2p1".to_vec()], "its greeting"),
        (vec![greeting(0)], "an old negotiation"),
        (
            vec![greeting(3), answer(0x8000_0006, b"no such export")],
            "refused: no such export",
        ),
        (
            vec![greeting(3), answer(2, b"")],
            "an answer to no question",
        ),
        (vec![greeting(3), answer(1, b"")], "no word of the export"),
        (
            vec![greeting(3), answer(3, b"\0\0"), answer(1, b"")],
            "no word of the export",
        ),
        (vec![greeting(3), vec![0xff; 20]], "the head of an answer"),
        (
            vec![greeting(3), answer(3, &[0; 4097])],
            "an answer without end",
        ),
        (vec![greeting(3)], "talking to"),
    ] {
        let (outcome, _) = talk(&says);
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
}

fn connected(flags: u16) -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let connection = Connection {
        stream: ours,
        flags,
        awaited: 0,
        broken: false,
    };
    (connection, theirs)
}

#[test]
fn requests_are_laid_out_as_the_protocol_says() {
    let all = CAN_FLUSH | CAN_WRITE_ZEROES | CAN_FAST_ZERO;
    let (mut connection, mut server) = connected(all);
    for (command, flags, code) in [
        (Command::Read, 0, 0),
        (Command::Write, 0, 1),
        (Command::Flush, 0, 3),
        (Command::Discard, 0x10, 6),
        (Command::Zero, 0x12, 6),
    ] {
        let data: &[u8] = if command == Command::Write {
            b"abc"
        } else {
            b""
        };
        connection
            .send(command, 9, Bytes::new(1 << 33), 3, data)
            .unwrap();
        let mut sent = [0; 31];
        let sent = &mut sent[..28 + data.len()];
        server.read_exact(sent).unwrap();
        let mut expected = vec![0x25, 0x60, 0x95, 0x13, 0, flags, 0, code];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend(data);
        assert_eq!(sent, expected, "{command:?}");
    }
}

#[test]
fn an_error_of_the_image_stays_what_it_is() {
    let (mut connection, mut server) = connected(0);
    for (code, errno) in [
        (0_u32, None),
        (28, Some(Errno::NOSPC)),
        (5, Some(Errno::IO)),
        (95, Some(Errno::OPNOTSUPP)),
        (4711, Some(Errno::IO)),
    ] {
        connection
            .send(Command::Read, 1, Bytes::ZERO, 1, &[])
            .unwrap();
        let head = [
            &[0x67, 0x44, 0x66, 0x98][..],
            &code.to_be_bytes(),
            &1_u64.to_be_bytes(),
        ];
        server.write_all(&head.concat()).unwrap();
        let reply = connection.receive().unwrap();
        assert_eq!((reply.cookie, reply.error), (1, errno));
        assert!(!connection.is_awaited());
    }
}

#[test]
fn what_the_export_cannot_do_is_not_asked_for() {
    let (mut connection, server) = connected(CAN_WRITE_ZEROES);
    for command in [Command::Discard, Command::Zero] {
        let sent = connection.send(command, 1, Bytes::ZERO, 1, &[]);
        assert_eq!(sent, Err(Errno::OPNOTSUPP));
    }
    assert_eq!(
        connection.send(Command::Flush, 1, Bytes::ZERO, 0, &[]),
        Ok(())
    );
    assert!(!connection.is_awaited());
    drop(connection);
    let mut nothing = Vec::new();
    let count = { server }.read_to_end(&mut nothing).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn a_broken_line_stays_broken() {
    let (mut connection, mut server) = connected(0);
    connection
        .send(Command::Read, 1, Bytes::ZERO, 1, &[])
        .unwrap();
    server.write_all(&[0xff; 16]).unwrap();
    assert_eq!(connection.receive(), Err(Errno::IO));
    assert!(!connection.is_awaited());
    let sent = connection.send(Command::Read, 1, Bytes::ZERO, 1, &[]);
    assert_eq!(sent, Err(Errno::IO));
}
