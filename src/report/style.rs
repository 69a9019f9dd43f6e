//! Colour, characters and length of what is shown.

use crate::report::text::Charset;

/// How much is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only domains about which there is something to say: everything but clean.
    Quiet,
    /// What a person reads at a glance.
    #[default]
    Normal,
    /// Also what went well, and every line of the checkers.
    Verbose,
}

/// What the place the text goes to can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colours by SGR escape sequences (ECMA-48, 8.3.117).
    pub colour: bool,
    /// Characters outside ASCII: lines drawn as boxes, guests' labels as they are.
    pub unicode: bool,
}

/// What [`Style::detect`] decides by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The text goes to a terminal.
    pub is_terminal: bool,
    /// `NO_COLOR`, if set.
    pub no_color: Option<&'a str>,
    /// `TERM`, if set.
    pub term: Option<&'a str>,
    /// `LC_ALL`, if set.
    pub lc_all: Option<&'a str>,
    /// `LC_CTYPE`, if set.
    pub lc_ctype: Option<&'a str>,
    /// `LANG`, if set.
    pub lang: Option<&'a str>,
}

/// What a piece of text means to its reader; the colour follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    /// The text itself.
    #[default]
    Plain,
    /// Names of domains and disks.
    Strong,
    /// What is of less interest.
    Dim,
    /// All is well.
    Good,
    /// Something was done or is to be known.
    Warn,
    /// Nobody looked.
    Open,
    /// Something is wrong.
    Bad,
}

impl Paint {
    /// The parameters of its SGR sequence; `None` for plain text.
    const fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Open => Some("35"),
            Self::Bad => Some("1;31"),
        }
    }
}

impl Style {
    /// Neither colours nor characters outside ASCII.
    pub const PLAIN: Self = Self {
        colour: false,
        unicode: false,
    };

    /// Colours on terminals that can show them, unless `NO_COLOR` (<https://no-color.org>) is set
    /// and not empty; characters outside ASCII where the locale's codeset is UTF-8.
    pub fn detect(facts: &Facts<'_>) -> Self {
        let unwanted = facts.no_color.is_some_and(|value| !value.is_empty());
        let capable = facts.term.is_some_and(|term| !matches!(term, "" | "dumb"));
        // The order of locale(7): the first that is set and not empty counts.
        let locale = [facts.lc_all, facts.lc_ctype, facts.lang]
            .into_iter()
            .flatten()
            .find(|value| !value.is_empty())
            .unwrap_or_default();
        let codeset = locale
            .split_once('.')
            .map(|(_, rest)| rest.split_once('@').map_or(rest, |(codeset, _)| codeset))
            .unwrap_or_default();
        Self {
            colour: facts.is_terminal && capable && !unwanted,
            unicode: codeset.eq_ignore_ascii_case("utf-8") || codeset.eq_ignore_ascii_case("utf8"),
        }
    }

    /// The characters that may be shown.
    pub const fn charset(self) -> Charset {
        if self.unicode {
            Charset::Unicode
        } else {
            Charset::Ascii
        }
    }

    /// `text` cleaned, and in the colour of its meaning.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let text = self.charset().clean(text);
        match paint.sgr() {
            Some(parameters) if self.colour && !text.is_empty() => {
                format!("\x1b[{parameters}m{text}\x1b[0m")
            }
            _ => text.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_follows_terminal_and_locale() {
        let terminal = Facts {
            is_terminal: true,
            term: Some("xterm-256color"),
            lang: Some("de_DE.UTF-8"),
            ..Facts::default()
        };
        for (facts, colour, unicode) in [
            (terminal, true, true),
            (
                Facts {
                    is_terminal: false,
                    ..terminal
                },
                false,
                true,
            ),
            (
                Facts {
                    no_color: Some("1"),
                    ..terminal
                },
                false,
                true,
            ),
            (
                Facts {
                    no_color: Some(""),
                    ..terminal
                },
                true,
                true,
            ),
            (
                Facts {
                    term: Some("dumb"),
                    ..terminal
                },
                false,
                true,
            ),
            (
                Facts {
                    term: None,
                    ..terminal
                },
                false,
                true,
            ),
            (
                Facts {
                    lc_all: Some("C"),
                    ..terminal
                },
                true,
                false,
            ),
            (
                Facts {
                    lc_all: Some(""),
                    ..terminal
                },
                true,
                true,
            ),
            (
                Facts {
                    lc_all: Some("C.utf8"),
                    lang: None,
                    ..terminal
                },
                true,
                true,
            ),
            (
                Facts {
                    lc_ctype: Some("fr_FR.UTF-8@euro"),
                    lang: Some("C"),
                    ..terminal
                },
                true,
                true,
            ),
            (
                Facts {
                    lang: Some("de_DE.ISO-8859-1"),
                    ..terminal
                },
                true,
                false,
            ),
            (
                Facts {
                    lang: Some("utf-8"),
                    ..terminal
                },
                true,
                false,
            ),
            (Facts::default(), false, false),
        ] {
            assert_eq!(
                Style::detect(&facts),
                Style { colour, unicode },
                "{facts:?}"
            );
        }
    }

    #[test]
    fn paint_cleans_what_it_paints() {
        let colour = Style {
            colour: true,
            unicode: true,
        };
        assert_eq!(
            colour.paint(Paint::Bad, "no\x1b[32m"),
            "\x1b[1;31mno\\x1b[32m\x1b[0m"
        );
        assert_eq!(colour.paint(Paint::Bad, ""), "");
        assert_eq!(Style::PLAIN.paint(Paint::Bad, "ä\n"), "\\u{e4}\\n");
    }
}
