//! The grammar of LVM's metadata text: sections, `key = value`, strings, numbers, arrays, comments
//! (libdm/libdm-config.c). What LVM itself never writes there but would read, such as bare words or
//! `a/b` for a key in a section, is refused: no reading is better than two readings.

use std::borrow::Cow;
use std::collections::HashSet;

use super::identity::is_name_byte;

/// How deep sections may nest. LVM's metadata has four levels.
const MAX_DEPTH: usize = 16;

/// How many keys and array elements a text may have in all; enough for some 8,000 logical volumes.
const MAX_NODES: usize = 200_000;

/// A section: its entries in the order of the text. No key occurs twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
}

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// A string, its escapes resolved; bytes that are not UTF-8 are replaced.
    String(Cow<'a, str>),
    /// An array of numbers and strings; LVM's arrays do not nest.
    Array(Vec<Value<'a>>),
    /// A section.
    Section(Section<'a>),
}

/// Where and why a text does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, byte {offset}: {fault}")]
pub struct TextError {
    /// The line, from 1.
    pub line: usize,
    /// The byte, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub fault: TextFault,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// Something else stands where a key must stand.
    #[error("expected a key")]
    ExpectedKey,
    /// A key with neither behind it.
    #[error("expected = or {{ after the key")]
    ExpectedValueOrSection,
    /// Something else stands where a value must stand.
    #[error("expected a value")]
    ExpectedValue,
    /// An array that does not go on properly.
    #[error("expected , or ] in the array")]
    ExpectedArrayEnd,
    /// A number that does not fit, or with a leading zero, which LVM would read as octal.
    #[error("invalid number")]
    Number,
    /// A string that does not end.
    #[error("unterminated string")]
    UnterminatedString,
    /// A section that does not end.
    #[error("unterminated section")]
    UnterminatedSection,
    /// A key that its section already has.
    #[error("a key occurs twice in the section that ends here")]
    DuplicateKey,
    /// Sections inside sections without an end.
    #[error("sections nested too deeply")]
    TooDeep,
    /// More keys and elements than any volume group needs.
    #[error("too many entries")]
    TooMany,
}

impl<'a> Section<'a> {
    /// The entries in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &Value<'a>)> {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entries()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The section under a key; `None` if it is missing or a value.
    pub fn section(&self, key: &str) -> Option<&Section<'a>> {
        match self.get(key) {
            Some(Value::Section(section)) => Some(section),
            _ => None,
        }
    }

    /// The string under a key; `None` if it is missing or no string.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The whole number under a key; `None` if it is missing, no whole number or out of range.
    pub fn integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        match self.get(key) {
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The elements of the array under a key; `None` if it is missing or no array.
    pub fn array(&self, key: &str) -> Option<&[Value<'a>]> {
        match self.get(key) {
            Some(Value::Array(elements)) => Some(elements),
            _ => None,
        }
    }
}

/// Reads a whole text. It ends with its bytes or at the first NUL.
///
/// # Errors
/// [`TextError`] at the first byte that does not follow the grammar.
pub fn parse(text: &[u8]) -> Result<Section<'_>, TextError> {
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    let mut parser = Parser {
        text: text.get(..end).unwrap_or_default(),
        at: 0,
        nodes: 0,
    };
    parser.section(0)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    nodes: usize,
}

impl<'a> Parser<'a> {
    fn fault(&self, fault: TextFault) -> TextError {
        self.fault_at(self.at, fault)
    }

    fn fault_at(&self, offset: usize, fault: TextFault) -> TextError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        TextError {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            offset,
            fault,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// The bytes from here on for which `wanted` holds.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| !wanted(*byte))
            .unwrap_or(rest.len());
        self.at = self.at.saturating_add(length);
        rest.get(..length).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            if self.peek() != Some(b'#') {
                return;
            }
            self.take_while(|byte| byte != b'\n');
        }
    }

    fn count_node(&mut self) -> Result<(), TextError> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            return Err(self.fault(TextFault::TooMany));
        }
        Ok(())
    }

    /// The entries up to the closing brace, or at depth 0 up to the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section<'a>, TextError> {
        if depth > MAX_DEPTH {
            return Err(self.fault(TextFault::TooDeep));
        }
        let mut entries = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None if depth == 0 => break,
                None => return Err(self.fault(TextFault::UnterminatedSection)),
                Some(b'}') if depth > 0 => {
                    self.step();
                    break;
                }
                Some(_) => entries.push(self.entry(depth)?),
            }
        }
        let mut keys = HashSet::with_capacity(entries.len());
        if entries.iter().any(|(key, _)| !keys.insert(*key)) {
            return Err(self.fault(TextFault::DuplicateKey));
        }
        Ok(Section { entries })
    }

    fn entry(&mut self, depth: usize) -> Result<(&'a str, Value<'a>), TextError> {
        self.count_node()?;
        let key = self.take_while(is_name_byte);
        let key = std::str::from_utf8(key).unwrap_or_default();
        if key.is_empty() {
            return Err(self.fault(TextFault::ExpectedKey));
        }
        self.skip_space();
        let value = match self.peek() {
            Some(b'=') => {
                self.step();
                self.skip_space();
                self.value()?
            }
            Some(b'{') => {
                self.step();
                Value::Section(self.section(depth.saturating_add(1))?)
            }
            _ => return Err(self.fault(TextFault::ExpectedValueOrSection)),
        };
        Ok((key, value))
    }

    fn value(&mut self) -> Result<Value<'a>, TextError> {
        if self.peek() != Some(b'[') {
            return self.scalar();
        }
        self.step();
        let mut elements = Vec::new();
        loop {
            self.skip_space();
            if self.peek() == Some(b']') {
                self.step();
                return Ok(Value::Array(elements));
            }
            self.count_node()?;
            elements.push(self.scalar()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.step(),
                Some(b']') => {}
                _ => return Err(self.fault(TextFault::ExpectedArrayEnd)),
            }
        }
    }

    fn scalar(&mut self) -> Result<Value<'a>, TextError> {
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => self.number(),
            _ => Err(self.fault(TextFault::ExpectedValue)),
        }
    }

    fn number(&mut self) -> Result<Value<'a>, TextError> {
        let start = self.at;
        let token =
            self.take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.'));
        let token = std::str::from_utf8(token).unwrap_or_default();
        let digits = token.trim_start_matches(['+', '-']);
        let value = if token.contains('.') {
            token.parse().ok().map(Value::Float)
        } else if digits.len() > 1 && digits.starts_with('0') {
            None
        } else {
            token.parse().ok().map(Value::Integer)
        };
        value.ok_or_else(|| self.fault_at(start, TextFault::Number))
    }

    /// A string in double quotes, where a backslash keeps the next character from its meaning,
    /// or in single quotes, where nothing has one.
    fn string(&mut self, quote: u8) -> Result<Value<'a>, TextError> {
        self.step();
        let start = self.at;
        let mut escaped = false;
        loop {
            self.take_while(|byte| byte != quote && byte != b'\\');
            match self.peek() {
                Some(b'\\') if quote == b'"' => {
                    escaped = true;
                    self.step();
                    self.step();
                }
                Some(b'\\') => self.step(),
                Some(_) => break,
                None => return Err(self.fault_at(start, TextFault::UnterminatedString)),
            }
        }
        let inner = self.text.get(start..self.at).unwrap_or_default();
        self.step();
        let text = String::from_utf8_lossy(inner);
        Ok(Value::String(if escaped {
            Cow::Owned(unescape(&text))
        } else {
            text
        }))
    }
}

/// Takes the backslash away before a double quote or another backslash
/// (`dm_unescape_double_quotes`); before anything else it stays.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\\'
            && let Some(next) = characters.next_if(|next| matches!(next, '"' | '\\'))
        {
            plain.push(next);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> TextFault {
        parse(text.as_bytes()).unwrap_err().fault
    }

    #[test]
    fn the_whole_grammar_is_read() {
        let text = br#"
# a comment { = [
vg-1 { id = "a\"b\\c\d" # behind
	n = -3 f = 1.5 z=0
	list = ["x", 'y\', 7,]
	empty = [ ]
	inner { k = 9223372036854775807 }
}
version = 1
"#;
        let root = parse(text).unwrap();
        let group = root.section("vg-1").unwrap();
        assert_eq!(group.string("id"), Some(r#"a"b\c\d"#));
        assert_eq!(group.integer::<i64>("n"), Some(-3));
        assert_eq!(group.integer::<u32>("n"), None);
        assert_eq!(group.integer::<u32>("z"), Some(0));
        assert_eq!(group.get("f"), Some(&Value::Float(1.5)));
        assert_eq!(
            group.array("list").unwrap(),
            [
                Value::String("x".into()),
                Value::String("y\\".into()),
                Value::Integer(7)
            ]
        );
        assert_eq!(group.array("empty"), Some(&[][..]));
        let inner = group.section("inner").unwrap();
        assert_eq!(inner.integer::<i64>("k"), Some(i64::MAX));
        assert_eq!(root.integer::<u8>("version"), Some(1));
        assert_eq!(root.entries().count(), 2);
    }

    #[test]
    fn a_nul_ends_the_text() {
        let root = parse(b"a = 1\n\0}}}garbage").unwrap();
        assert_eq!(root.entries().count(), 1);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for (text, expected) in [
            ("}", TextFault::ExpectedKey),
            ("= 1", TextFault::ExpectedKey),
            ("a", TextFault::ExpectedValueOrSection),
            ("a/b = 1", TextFault::ExpectedValueOrSection),
            ("a =", TextFault::ExpectedValue),
            ("a = bare", TextFault::ExpectedValue),
            ("a = [", TextFault::ExpectedValue),
            ("a = [[1]]", TextFault::ExpectedValue),
            ("a = [1", TextFault::ExpectedArrayEnd),
            ("a = [1 2]", TextFault::ExpectedArrayEnd),
            ("a = 9223372036854775808", TextFault::Number),
            ("a = 010", TextFault::Number),
            ("a = 1-2", TextFault::Number),
            ("a = .", TextFault::Number),
            ("a = -", TextFault::Number),
            ("a = \"b", TextFault::UnterminatedString),
            ("a = \"b\\", TextFault::UnterminatedString),
            ("a = \"b\\\"", TextFault::UnterminatedString),
            ("a = 'b", TextFault::UnterminatedString),
            ("a { b = 1", TextFault::UnterminatedSection),
            ("a = 1 a { }", TextFault::DuplicateKey),
            ("a { b = 1 b = 2 }", TextFault::DuplicateKey),
        ] {
            assert_eq!(fault(text), expected, "{text}");
        }
    }

    #[test]
    fn an_error_says_where() {
        let error = parse(b"a = 1\nb = {").unwrap_err();
        assert_eq!((error.line, error.offset), (2, 10));
        assert_eq!(error.to_string(), "line 2, byte 10: expected a value");
    }

    #[test]
    fn nesting_and_counts_are_bounded() {
        assert_eq!(fault(&"a{".repeat(1_000_000)), TextFault::TooDeep);
        let nested = format!("{}{}", "a{".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert!(parse(nested.as_bytes()).is_ok());
        let many = format!("a = [{}]", "1,".repeat(MAX_NODES));
        assert_eq!(fault(&many), TextFault::TooMany);
    }
}
