//! An outline: entries inside entries, with lines that show what belongs to what, and columns.

use std::fmt::Write as _;

use crate::report::style::{Paint, Style};
use crate::report::text::columns;

/// What stands between two columns.
const GAP: usize = 2;

/// A piece of text with one meaning. It is cleaned when it is drawn, so it may hold anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    text: String,
    paint: Paint,
}

impl Span {
    /// `text`, painted by its meaning.
    pub fn new(paint: Paint, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }

    /// Text without a special meaning; also an empty cell.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(Paint::Plain, text)
    }
}

/// One line of running text.
pub(super) type Line = Vec<Span>;

/// How a column is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading, where the outline has headings.
    pub title: &'static str,
    /// Numbers end in line, words begin in line.
    pub to_the_right: bool,
    /// Longer cells push their own row aside instead of widening the column for all.
    pub widest: usize,
}

impl Column {
    pub(super) const fn new(title: &'static str, to_the_right: bool, widest: usize) -> Self {
        Self {
            title,
            to_the_right,
            widest,
        }
    }
}

/// A row, what is to be said of it, and the entries inside it.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// One for each column.
    pub cells: Vec<Span>,
    /// Lines below the row.
    pub below: Vec<Line>,
    /// What is inside.
    pub inside: Vec<Entry>,
}

/// All that is drawn of one domain.
#[derive(Clone, Debug)]
pub(super) struct Outline<'a> {
    /// The first line.
    pub headline: Line,
    /// What is to be said of the whole.
    pub below: Vec<Line>,
    /// How the entries' cells are set; the first column also holds the lines of the tree.
    pub columns: &'a [Column],
    /// Whether the columns get headings.
    pub headings: bool,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Lines below all, after an empty one; not indented, so that they can be copied.
    pub after: &'a [String],
}

/// The lines of the tree, each with the columns it takes.
struct Glyphs {
    /// Before an entry that has others after it.
    branch: &'static str,
    /// Before the last entry.
    last: &'static str,
    /// Past an entry that has others after it.
    past: &'static str,
}

const BOXES: Glyphs = Glyphs {
    branch: "├─ ",
    last: "└─ ",
    past: "│  ",
};
const DASHES: Glyphs = Glyphs {
    branch: "|- ",
    last: "`- ",
    past: "|  ",
};
/// Past the last entry.
const NOTHING: &str = "   ";

/// What is to be drawn, from top to bottom.
enum Drawn<'a> {
    Row(String, &'a [Span]),
    Line(String, &'a Line),
}

impl Outline<'_> {
    /// The whole text; every line ends with a newline.
    pub fn draw(&self, style: Style) -> String {
        let titles: Vec<Span> = self
            .columns
            .iter()
            .map(|column| Span::new(Paint::Dim, column.title))
            .collect();
        let mut drawn = Vec::new();
        if self.headings && !self.entries.is_empty() {
            drawn.push(Drawn::Row(String::new(), &titles));
        }
        let glyphs = if style.unicode { &BOXES } else { &DASHES };
        collect(&self.entries, "", glyphs, &mut drawn);
        let widths = self.widths(&drawn, style);

        let mut text = String::new();
        line(&self.headline, style, &mut text);
        for below in &self.below {
            text.push_str(NOTHING);
            line(below, style, &mut text);
        }
        for part in &drawn {
            match part {
                Drawn::Row(prefix, cells) => self.row(prefix, cells, &widths, style, &mut text),
                Drawn::Line(prefix, spans) => {
                    text.push_str(&style.paint(Paint::Dim, prefix));
                    line(spans, style, &mut text);
                }
            }
        }
        if !self.after.is_empty() {
            text.push('\n');
        }
        for after in self.after {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", style.charset().clean(after));
        }
        text
    }

    /// The width of each column; `None` for one with nothing in it but its heading.
    fn widths(&self, drawn: &[Drawn<'_>], style: Style) -> Vec<Option<usize>> {
        let mut widths = vec![0; self.columns.len()];
        let mut used = vec![false; self.columns.len()];
        let headings = usize::from(self.headings);
        for (row, part) in drawn.iter().enumerate() {
            let Drawn::Row(prefix, cells) = part else {
                continue;
            };
            let mut prefix = columns(prefix);
            let all = widths.iter_mut().zip(&mut used).zip(self.columns);
            for (((width, used), column), cell) in all.zip(*cells) {
                let wide = columns(&style.charset().clean(&cell.text)).saturating_add(prefix);
                prefix = 0;
                if wide <= column.widest {
                    *width = wide.max(*width);
                }
                *used |= row >= headings && !cell.text.is_empty();
            }
        }
        let all = widths.into_iter().zip(used);
        all.map(|(width, used)| used.then_some(width)).collect()
    }

    fn row(
        &self,
        prefix: &str,
        cells: &[Span],
        widths: &[Option<usize>],
        style: Style,
        text: &mut String,
    ) {
        let mut set = style.paint(Paint::Dim, prefix);
        let mut prefix = columns(prefix);
        // Blanks are owed and paid only before more text, so that no line ends in blanks.
        let mut owed: usize = 0;
        for ((cell, column), width) in cells.iter().zip(self.columns).zip(widths) {
            let Some(width) = width else { continue };
            let content = columns(&style.charset().clean(&cell.text));
            let wide = content.saturating_add(prefix);
            prefix = 0;
            let missing = width.saturating_sub(wide);
            if content == 0 {
                owed = owed.saturating_add(missing).saturating_add(GAP);
                continue;
            }
            let (before, after) = if column.to_the_right {
                (missing, 0)
            } else {
                (0, missing)
            };
            set.extend(std::iter::repeat_n(' ', owed.saturating_add(before)));
            set.push_str(&style.paint(cell.paint, &cell.text));
            owed = after.saturating_add(GAP);
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{set}");
    }
}

fn line(spans: &[Span], style: Style, text: &mut String) {
    for span in spans {
        text.push_str(&style.paint(span.paint, &span.text));
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

fn collect<'a>(entries: &'a [Entry], prefix: &str, glyphs: &Glyphs, drawn: &mut Vec<Drawn<'a>>) {
    let mut rest = entries.iter().peekable();
    while let Some(entry) = rest.next() {
        let (own, past) = match rest.peek() {
            Some(_) => (glyphs.branch, glyphs.past),
            None => (glyphs.last, NOTHING),
        };
        drawn.push(Drawn::Row(format!("{prefix}{own}"), &entry.cells));
        let inside = format!("{prefix}{past}");
        let below = match entry.inside.is_empty() {
            true => format!("{inside}{NOTHING}"),
            false => format!("{inside}{}", glyphs.past),
        };
        drawn.extend(
            entry
                .below
                .iter()
                .map(|line| Drawn::Line(below.clone(), line)),
        );
        collect(&entry.inside, &inside, glyphs, drawn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column {
            title: "NAME",
            to_the_right: false,
            widest: 12,
        },
        Column {
            title: "NEVER",
            to_the_right: false,
            widest: 12,
        },
        Column {
            title: "SIZE",
            to_the_right: true,
            widest: 12,
        },
    ];

    fn entry(name: &str, size: &str, inside: Vec<Entry>) -> Entry {
        Entry {
            cells: vec![Span::plain(name), Span::default(), Span::plain(size)],
            below: vec![],
            inside,
        }
    }

    #[test]
    fn lines_columns_and_headings() {
        let mut first = entry(
            "a",
            "10",
            vec![entry("数", "", vec![]), entry("c", "7", vec![])],
        );
        first
            .below
            .push(vec![Span::plain("said "), Span::new(Paint::Bad, "of\ta")]);
        let mut last = entry("a name that is too long", "5", vec![]);
        last.below.push(vec![Span::plain("")]);
        let outline = Outline {
            headline: vec![Span::new(Paint::Strong, "vm\x1b1")],
            below: vec![vec![Span::plain("of the whole")]],
            columns: &COLUMNS,
            headings: true,
            entries: vec![first, last],
            after: &["umount '/run/a\u{1b}'".to_owned()],
        };
        assert_eq!(
            outline.draw(Style {
                colour: false,
                unicode: true
            }),
            "vm\\x1b1\n   of the whole\n\
             NAME      SIZE\n\
             ├─ a        10\n\
             │  │  said of\\ta\n\
             │  ├─ 数\n\
             │  └─ c      7\n\
             └─ a name that is too long     5\n\
             \n\
             \n\
             umount '/run/a\\x1b'\n"
        );
        assert_eq!(
            outline
                .draw(Style {
                    colour: true,
                    unicode: false
                })
                .lines()
                .nth(3),
            Some("\x1b[2m|- \x1b[0ma       10")
        );
    }
}
