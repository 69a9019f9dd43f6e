//! An object of LUKS2's metadata, and what it must have.

use serde_json::{Map, Value};

use super::header::HeaderError;

/// An object, and what it is called in a sentence.
pub(super) struct Part<'a> {
    what: String,
    members: &'a Map<String, Value>,
}

impl<'a> Part<'a> {
    /// The value, if it is an object.
    pub(super) fn new(what: &str, value: &'a Value) -> Result<Self, HeaderError> {
        match value.as_object() {
            Some(members) => Ok(Self {
                what: what.to_owned(),
                members,
            }),
            None => Err(HeaderError::damaged(format!("{what} is no object"))),
        }
    }

    /// A sentence about it.
    pub(super) fn wrong(&self, what: &str) -> HeaderError {
        HeaderError::damaged(format!("{} {what}", self.what))
    }

    fn member<T>(
        &self,
        name: &str,
        kind: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, HeaderError> {
        match self.members.get(name) {
            Some(value) => kind(value).ok_or_else(|| self.wrong(&format!("has a wrong {name}"))),
            None => Err(self.wrong(&format!("has no {name}"))),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, HeaderError> {
        self.member(name, |value| value.as_str().filter(|text| !text.is_empty()))
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<u64, HeaderError> {
        self.member(name, |value| {
            value
                .as_u64()
                .filter(|number| u32::try_from(*number).is_ok())
        })
    }

    /// A number of 64 bits, which is written as text.
    pub(super) fn number(&self, name: &str) -> Result<u64, HeaderError> {
        self.member(name, |value| number(value.as_str()?))
    }

    /// An object in it.
    pub(super) fn part(&self, name: &str) -> Result<Part<'a>, HeaderError> {
        let members = self.member(name, Value::as_object)?;
        let what = format!("the {name} of {}", self.what);
        Ok(Part { what, members })
    }

    /// The objects in a list whose members are called by numbers, in the order of these.
    pub(super) fn numbered(
        &self,
        name: &str,
        one: &str,
    ) -> Result<Vec<(u64, Part<'a>)>, HeaderError> {
        let members = self.member(name, Value::as_object)?;
        let mut found = Vec::with_capacity(members.len());
        for (key, value) in members {
            // `00` would be another one than `0`, by the same number.
            let id = number(key).filter(|id| id.to_string() == *key);
            let id = id.ok_or_else(|| self.wrong(&format!("has a {one} without a number")))?;
            found.push((id, Part::new(&format!("{one} {id}"), value)?));
        }
        found.sort_by_key(|(id, _)| *id);
        Ok(found)
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, HeaderError> {
        self.member(name, |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// A list of texts that need not be there.
    pub(super) fn texts_if_any(&self, name: &str) -> Result<Vec<&'a str>, HeaderError> {
        match self.has(name) {
            true => self.texts(name),
            false => Ok(Vec::new()),
        }
    }

    /// A list of numbers, which are written as texts.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<u64>, HeaderError> {
        self.member(name, |value| {
            let numbers = value.as_array()?.iter();
            numbers.map(|value| number(value.as_str()?)).collect()
        })
    }
}

/// A number without a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
