//! Text from guests and hosts, made fit for a terminal.
//!
//! Labels, names and messages of checkers may hold anything. Escape sequences in them would be
//! commands to the reader's terminal, and bidirectional controls would make a line read as
//! another one. Both are shown as escapes.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How many columns lie between two tab stops, as terminals have them.
const TAB_STOP: usize = 8;

/// Which characters can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Only ASCII.
    Ascii,
    /// All that are visible.
    Unicode,
}

impl Charset {
    /// `text` with everything escaped that is no visible character: controls as `\x1b`, `\n`;
    /// bidirectional and other invisible format characters as `\u{202e}`.
    pub fn clean(self, text: &str) -> Cow<'_, str> {
        if text.chars().all(|character| self.shows(character)) {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len().saturating_mul(2));
        for character in text.chars() {
            if self.shows(character) {
                clean.push(character);
            } else {
                escape(character, &mut clean);
            }
        }
        Cow::Owned(clean)
    }

    /// `text` cleaned, cut to at most `width` columns, in quotes.
    pub fn quote(self, text: &str, width: usize) -> String {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        let clean = self.clean(&escaped);
        format!("\"{}\"", self.cut(&clean, width))
    }

    /// `text`, which was cleaned before, cut to at most `width` columns.
    fn cut(self, text: &str, width: usize) -> Cow<'_, str> {
        if columns(text) <= width {
            return Cow::Borrowed(text);
        }
        let mark = match self {
            Self::Ascii => "...",
            Self::Unicode => "…",
        };
        let mut room = width.saturating_sub(columns(mark));
        let mut kept = String::new();
        for character in text.chars() {
            let wide = character.width().unwrap_or(0);
            if wide > room {
                break;
            }
            room = room.saturating_sub(wide);
            kept.push(character);
        }
        kept.push_str(mark);
        Cow::Owned(kept)
    }

    fn shows(self, character: char) -> bool {
        match self {
            Self::Ascii => matches!(character, ' '..='~'),
            Self::Unicode => !is_invisible(character),
        }
    }
}

/// Controls (category Cc), and those format characters (Cf) and separators that change how the text around
/// them is laid out or that cannot be seen (Unicode 16, UAX #9 and chapter 23).
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

fn escape(character: char, into: &mut String) {
    match character {
        '\n' => into.push_str("\\n"),
        '\r' => into.push_str("\\r"),
        '\t' => into.push_str("\\t"),
        '\0'..='\x7f' => {
            // Writing to a String cannot fail.
            let _ = write!(into, "\\x{:02x}", u32::from(character));
        }
        _ => into.extend(character.escape_unicode()),
    }
}

/// A JSON `document` with `\u` escapes (RFC 8259, 7) for the invisible characters that serde_json
/// leaves as they are: all but C0. They stand only inside strings.
pub(super) fn escape_json(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for character in document.chars() {
        if character != '\n' && is_invisible(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// How many columns a terminal gives to a cleaned text (UAX #11: East Asian wide characters take two).
pub fn columns(text: &str) -> usize {
    text.width()
}

/// `line` with its tabs replaced by spaces up to the next tab stop.
pub fn expand_tabs(line: &str) -> String {
    let mut expanded = String::with_capacity(line.len());
    let mut column: usize = 0;
    for character in line.chars() {
        if character == '\t' {
            let spaces = TAB_STOP - column % TAB_STOP;
            expanded.extend(std::iter::repeat_n(' ', spaces));
            column = column.saturating_add(spaces);
        } else {
            expanded.push(character);
            column = column.saturating_add(character.width().unwrap_or(0));
        }
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_a_terminal() {
        for (hostile, unicode, ascii) in [
            ("lvroot", "lvroot", "lvroot"),
            (
                "\x1b]0;pwned\x07",
                "\\x1b]0;pwned\\x07",
                "\\x1b]0;pwned\\x07",
            ),
            ("a\u{202e}b", "a\\u{202e}b", "a\\u{202e}b"),
            ("\u{9b}31m", "\\u{9b}31m", "\\u{9b}31m"),
            (
                "two\r\nlines\t\0\x7f",
                "two\\r\\nlines\\t\\x00\\x7f",
                "two\\r\\nlines\\t\\x00\\x7f",
            ),
            (
                "\u{2066}\u{feff}\u{e0041}",
                "\\u{2066}\\u{feff}\\u{e0041}",
                "\\u{2066}\\u{feff}\\u{e0041}",
            ),
            (
                "Größe 数据",
                "Größe 数据",
                "Gr\\u{f6}\\u{df}e \\u{6570}\\u{636e}",
            ),
        ] {
            assert_eq!(Charset::Unicode.clean(hostile), unicode);
            assert_eq!(Charset::Ascii.clean(hostile), ascii);
            // What was cleaned stays as it is.
            assert_eq!(Charset::Unicode.clean(unicode), unicode);
        }
    }

    #[test]
    fn no_control_or_format_character_is_shown() {
        for character in ('\0'..=char::MAX).filter(|&c| c.is_control()) {
            assert!(!Charset::Unicode.shows(character), "{character:?}");
        }
        // Everything that unicode-bidi treats as an explicit control.
        for character in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".chars() {
            assert!(!Charset::Unicode.shows(character), "{character:?}");
        }
    }

    #[test]
    fn quotes_cannot_be_left_and_long_labels_are_cut() {
        for (charset, text, width, quoted) in [
            (Charset::Unicode, "root", 8, r#""root""#),
            (Charset::Unicode, r#"x"  clean"#, 32, r#""x\"  clean""#),
            (Charset::Unicode, r"a\x1b", 32, r#""a\\x1b""#),
            (Charset::Unicode, "0123456789", 8, "\"0123456…\""),
            (Charset::Ascii, "0123456789", 8, "\"01234...\""),
            (Charset::Unicode, "数据数据数", 8, "\"数据数…\""),
            (Charset::Unicode, "数据数据", 8, "\"数据数据\""),
        ] {
            assert_eq!(charset.quote(text, width), quoted);
        }
    }

    #[test]
    fn json_says_the_same_without_invisible_characters() {
        let text = "\u{e0041}ä\u{7f}\u{9b}\u{202e}数";
        let escaped = escape_json(&format!("[\n\"{text}\"\n]"));
        assert_eq!(escaped, "[\n\"\\udb40\\udc41ä\\u007f\\u009b\\u202e数\"\n]");
        let [read]: [String; 1] = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read, text);
    }

    #[test]
    fn tabs_end_at_tab_stops() {
        assert_eq!(expand_tabs("\t- a\tb"), "        - a     b");
        assert_eq!(expand_tabs("1234567\t8"), "1234567 8");
        assert_eq!(expand_tabs("12345678\t9"), "12345678        9");
    }
}
