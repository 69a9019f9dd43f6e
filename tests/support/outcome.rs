//! What a run of virt-fsck told.

use std::fmt;
use std::process::Output;

use serde_json::Value;

pub struct Outcome {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// The JSON document; null if there is none.
    pub json: Value,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exit status {:?}", self.status)?;
        match &self.json {
            Value::Null => writeln!(f, "--- stdout\n{}", self.stdout)?,
            json => writeln!(f, "{json}")?,
        }
        writeln!(f, "--- stderr\n{}---", self.stderr)
    }
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let outcome = Self {
            status: output.status.code(),
            json: serde_json::from_str(&stdout).unwrap_or_default(),
            stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        assert_ne!(outcome.status, Some(101), "{outcome}");
        if let Some(told) = outcome.json["exit_status"].as_i64() {
            assert_eq!(outcome.status.map(i64::from), Some(told), "{outcome}");
        }
        outcome
    }

    /// The exit status, and the verdict of each of these layers or disks; `domain` is the domain.
    pub fn is(&self, status: i32, verdicts: &[(&str, &str)]) -> &Self {
        assert_eq!(self.status, Some(status), "{self}");
        for (path, verdict) in verdicts {
            assert_eq!(self.result(path)["verdict"], *verdict, "{path}: {self}");
        }
        self
    }

    /// Each of these words stands in the layer's or disk's reason.
    pub fn says(&self, path: &str, words: &[&str]) -> &Self {
        let reason = self.result(path)["reason"].as_str().unwrap_or_default();
        for word in words {
            assert!(
                reason.contains(word),
                "{word:?} is not in {reason:?}: {self}"
            );
        }
        assert!(!reason.contains("os error"), "{reason}");
        assert_eq!(reason.lines().count(), 1, "{reason}");
        self
    }

    /// It ended with one sentence on standard error.
    pub fn complains(&self, words: &[&str]) -> &Self {
        assert_eq!(self.status, Some(8), "{self}");
        assert_eq!(self.stdout, "", "{self}");
        let lines: Vec<_> = self.stderr.lines().collect();
        let [line] = lines.as_slice() else {
            panic!("one line was expected: {self}");
        };
        assert!(line.starts_with("virt-fsck: "), "{self}");
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        assert!(!line.contains("os error"), "{line}");
        self
    }

    pub fn layer(&self, path: &str) -> &Value {
        self.find(path)
            .unwrap_or_else(|| panic!("there is no layer {path}: {self}"))
    }

    pub fn notes(&self, path: &str) -> String {
        let mut notes = Vec::new();
        let layer = self.layer(path);
        for list in [&layer["notes"], &layer["result"]["notes"]] {
            notes.extend(list.as_array().into_iter().flatten());
        }
        notes
            .iter()
            .filter_map(|note| note.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    }

    pub fn find(&self, path: &str) -> Option<&Value> {
        fn within<'a>(layer: &'a Value, path: &str) -> Option<&'a Value> {
            if layer["path"] == path {
                return Some(layer);
            }
            let children = layer["children"].as_array()?;
            children.iter().find_map(|child| within(child, path))
        }
        self.disks().find_map(|disk| within(&disk["layer"], path))
    }

    pub fn disks(&self) -> impl Iterator<Item = &Value> {
        let disks = self.json["domains"][0]["disks"].as_array();
        disks.into_iter().flatten()
    }

    /// What holds the verdict: the domain, the disk if it was not opened, else the layer.
    fn result(&self, path: &str) -> &Value {
        if path == "domain" {
            return &self.json["domains"][0];
        }
        match self.disks().find(|disk| disk["target"] == path) {
            Some(disk) if disk["layer"].is_null() => disk,
            _ => &self.layer(path)["result"],
        }
    }
}
