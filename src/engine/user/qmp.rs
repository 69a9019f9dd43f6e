//! QMP, the storage daemon's control protocol, over its standard input and output
//! (docs/interop/qmp-spec.rst of QEMU).

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// The longest answer that is read; query-block-nodes of a long chain has some 100 KiB.
const LONGEST_MESSAGE: u64 = 16 * 1024 * 1024;

/// The talk with the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The daemon refused a command; its own words.
    #[error("{0}")]
    Refused(String),
    /// The daemon closed the line.
    #[error("the storage daemon ended unexpectedly")]
    Ended,
    /// The daemon said something that is not QMP.
    #[error("the storage daemon sent an answer that is not QMP: {0}")]
    NotQmp(String),
    /// The system failed.
    #[error("talking to the storage daemon: {0}")]
    System(std::io::Error),
}

/// One message of the daemon.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Return(Value),
    Error(String),
    Event { name: String, data: Value },
}

fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let not_qmp = || {
        QmpError::NotQmp(
            String::from_utf8_lossy(line)
                .trim()
                .chars()
                .take(200)
                .collect(),
        )
    };
    let mut value: Value = serde_json::from_slice(line).map_err(|_| not_qmp())?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if let Some(answer) = value.get_mut("return") {
        return Ok(Message::Return(answer.take()));
    }
    if let Some(error) = value.get("error") {
        return Ok(Message::Error(text(error.get("desc")).ok_or_else(not_qmp)?));
    }
    if value.get("event").is_some() {
        return Ok(Message::Event {
            name: text(value.get("event")).ok_or_else(not_qmp)?,
            data: value.get_mut("data").map(Value::take).unwrap_or_default(),
        });
    }
    if value.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    Err(not_qmp())
}

/// A line to the daemon. One command at a time.
#[derive(Debug)]
pub struct Qmp<R, W> {
    reader: R,
    writer: W,
    events: Vec<(String, Value)>,
}

impl<R: AsyncBufRead + Unpin, W: AsyncWrite + Unpin> Qmp<R, W> {
    /// Waits for the greeting and takes the capabilities.
    ///
    /// # Errors
    /// When the daemon does not greet.
    pub async fn negotiate(reader: R, writer: W) -> Result<Self, QmpError> {
        let mut qmp = Self {
            reader,
            writer,
            events: Vec::new(),
        };
        match qmp.receive().await? {
            Message::Greeting => {}
            other => return Err(QmpError::NotQmp(format!("{other:?}"))),
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with the daemon's words, or when the talk fails.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        tracing::trace!(target: "virt_fsck::qmp", "{line}");
        self.answer_to(format!("{line}\n").as_bytes()).await
    }

    /// Gives the daemon a secret under a name; it is shown nowhere, and no copy of it is left.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn hand_over(&mut self, name: &str, secret: &[u8]) -> Result<Value, QmpError> {
        let data = Zeroizing::new(Base64::encode_string(secret));
        let object = json!({ "qom-type": "secret", "id": name, "format": "base64", "data": "" });
        let object = object.to_string();
        // `data` is put in by hand, so that no value holds it; Base64 needs no escapes.
        let (before, after) = object.split_once("\"data\":\"").unwrap_or((&object, ""));
        let parts = [
            "{\"execute\":\"object-add\",\"arguments\":",
            before,
            "\"data\":\"",
            &data,
            after,
            "}\n",
        ];
        let room = parts.iter().map(|part| part.len()).sum();
        let mut line = Zeroizing::new(String::with_capacity(room));
        parts.iter().for_each(|part| line.push_str(part));
        tracing::trace!(target: "virt_fsck::qmp", "object-add secret {name}");
        self.answer_to(line.as_bytes()).await
    }

    /// Sends a line and waits for its answer.
    async fn answer_to(&mut self, line: &[u8]) -> Result<Value, QmpError> {
        // In one piece: the daemon acts on a whole object, and after `quit` takes no newline.
        self.writer
            .write_all(line)
            .await
            .map_err(QmpError::System)?;
        self.writer.flush().await.map_err(QmpError::System)?;
        loop {
            match self.receive().await? {
                Message::Return(value) => return Ok(value),
                Message::Error(words) => return Err(QmpError::Refused(words)),
                Message::Event { name, data } => self.events.push((name, data)),
                Message::Greeting => return Err(QmpError::NotQmp("a second greeting".to_owned())),
            }
        }
    }

    /// Waits for an event with these `data` among its own, or takes one that came before.
    ///
    /// # Errors
    /// When the talk fails.
    pub async fn wait_for(&mut self, event: &str, data: &Value) -> Result<(), QmpError> {
        let wanted = data.as_object();
        let is_it = |name: &str, data: &Value| {
            let mut wanted = wanted.into_iter().flatten();
            name == event && wanted.all(|(key, value)| data.get(key) == Some(value))
        };
        if let Some(index) = self
            .events
            .iter()
            .position(|(name, data)| is_it(name, data))
        {
            self.events.remove(index);
            return Ok(());
        }
        loop {
            match self.receive().await? {
                Message::Event { name, data } if is_it(&name, &data) => return Ok(()),
                Message::Event { name, data } => self.events.push((name, data)),
                other => return Err(QmpError::NotQmp(format!("{other:?}"))),
            }
        }
    }

    async fn receive(&mut self) -> Result<Message, QmpError> {
        let mut line = Vec::new();
        let count = (&mut self.reader)
            .take(LONGEST_MESSAGE)
            .read_until(b'\n', &mut line)
            .await
            .map_err(QmpError::System)?;
        if count == 0 {
            return Err(QmpError::Ended);
        }
        parse(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_may_come_before_the_answer() {
        let answers = concat!(
            r#"{"QMP": {"version": {}, "capabilities": []}}"#,
            "\n",
            r#"{"return": {}}"#,
            "\n",
            r#"{"event": "BLOCK_EXPORT_DELETED", "data": {"id": "a"}}"#,
            "\n",
            r#"{"return": {"x": 1}}"#,
            "\n",
            r#"{"error": {"class": "GenericError", "desc": "no such node"}}"#,
            "\n",
        );
        let mut sent = Vec::new();
        let mut qmp = Qmp::negotiate(answers.as_bytes(), &mut sent).await.unwrap();
        let answer = qmp.execute("block-export-del", json!({})).await.unwrap();
        assert_eq!(answer, json!({ "x": 1 }));
        let deleted = json!({ "id": "a" });
        qmp.wait_for("BLOCK_EXPORT_DELETED", &deleted)
            .await
            .unwrap();
        let error = qmp.execute("blockdev-del", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "no such node");
        let error = qmp.execute("quit", json!({})).await.unwrap_err();
        assert!(matches!(error, QmpError::Ended), "{error:?}");
        assert_eq!(String::from_utf8(sent).unwrap().lines().count(), 4);
    }

    #[tokio::test]
    async fn a_daemon_that_talks_nonsense_is_named() {
        let error = Qmp::negotiate(&b"Segmentation fault\n"[..], Vec::new())
            .await
            .unwrap_err();
        assert!(error.to_string().ends_with("not QMP: Segmentation fault"));
    }
}
