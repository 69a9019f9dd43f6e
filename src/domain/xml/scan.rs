//! The first pass: the text is well-formed and bounded; its disks are cut out.

use quick_xml::escape::{EscapeError, resolve_predefined_entity};
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::error::{Place, XmlError};
use super::fragment::Fragment;

/// The longest text read, in bytes: what libvirt's protocol carries (src/remote/remote_protocol.x,
/// `REMOTE_STRING_MAX`).
const MAX_LENGTH: usize = 4 << 20;
/// The deepest nesting of elements read: the longest backing chain and some more.
const MAX_DEPTH: usize = 256;
/// The most disks read; the largest domain libvirt can address has fewer.
const MAX_DISKS: usize = 4096;

/// How many elements are open around a disk: `<domain>` and `<devices>`.
const DISK_DEPTH: usize = 2;
/// The most attributes one element may have; to find a repeated one each is compared with all others.
const MAX_ATTRIBUTES: usize = 256;

/// What of a domain's text matters here.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The text of `<name>`.
    pub(super) name: Option<String>,
    /// The text of `<uuid>`.
    pub(super) uuid: Option<String>,
    /// Each `<disk>`.
    pub(super) disks: Vec<Fragment>,
}

/// Reads the whole text once.
pub(super) fn scan(xml: &str) -> Result<Scan, XmlError> {
    if xml.len() > MAX_LENGTH {
        return Err(XmlError::TooLong {
            size: xml.len(),
            limit: MAX_LENGTH,
        });
    }
    if let Some((offset, found)) = xml.char_indices().find(|&(_, c)| !is_allowed(c)) {
        return Err(malformed(xml, offset, forbidden(found)));
    }
    Scanner::new(xml).run()
}

/// A start tag.
struct Tag {
    /// Its attributes but those of namespaces, as they stand in a tag.
    attributes: String,
    /// It has a prefix or sets another namespace.
    is_foreign: bool,
}

/// What is known after part of the text.
struct Scanner<'xml> {
    xml: &'xml str,
    /// The names of the elements that are open, the root first.
    open: Vec<String>,
    /// How many elements were open when the one began that is being passed over: one of a foreign
    /// namespace, or a second `<name>`.
    passed_over: Option<usize>,
    /// The disk being read.
    disk: Option<Fragment>,
    /// The root element has begun, and perhaps ended.
    rooted: bool,
    /// An offset and its line, from which the next is counted.
    counted: (usize, usize),
    found: Scan,
}

impl<'xml> Scanner<'xml> {
    fn new(xml: &'xml str) -> Self {
        Self {
            xml,
            open: Vec::new(),
            passed_over: None,
            disk: None,
            rooted: false,
            counted: (0, 1),
            found: Scan::default(),
        }
    }

    fn run(mut self) -> Result<Scan, XmlError> {
        let mut reader = Reader::from_str(self.xml);
        reader.config_mut().check_comments = true;
        loop {
            let at = to_offset(reader.buffer_position());
            let event = reader.read_event().map_err(|error| {
                malformed(
                    self.xml,
                    to_offset(reader.error_position()),
                    explain(&error),
                )
            })?;
            match event {
                Event::Start(start) => self.begin(&start, at)?,
                Event::Empty(start) => {
                    self.begin(&start, at)?;
                    self.end();
                }
                Event::End(_) => self.end(),
                Event::Text(text) => self.text(&text.xml10_content(), at)?,
                Event::CData(text) => self.text(&text.xml10_content(), at)?,
                Event::GeneralRef(reference) => {
                    let character = self.resolve(&reference, at)?;
                    self.text(character.encode_utf8(&mut [0; 4]), at)?;
                }
                Event::DocType(_) => {
                    return Err(XmlError::DocumentType {
                        place: Place::of(self.xml, at),
                    });
                }
                Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Eof => return self.finish(),
            }
        }
    }

    fn begin(&mut self, start: &BytesStart<'_>, at: usize) -> Result<(), XmlError> {
        let name = start.name().into_inner();
        if name.is_empty() {
            return Err(malformed(self.xml, at, "an element without a name".into()));
        }
        if self.open.is_empty() {
            if self.rooted {
                let what =
                    format!("expected the end of the text after its root element, found <{name}>");
                return Err(malformed(self.xml, at, what));
            }
            must_be_domain(name)?;
            self.rooted = true;
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooDeep {
                place: Place::of(self.xml, at),
                limit: MAX_DEPTH,
            });
        }

        let tag = self.read_tag(start, at)?;
        if self.passed_over.is_none() {
            if tag.is_foreign || self.is_repeated(name) {
                self.passed_over = Some(self.open.len());
            } else {
                self.take(name, &tag.attributes, at)?;
            }
        }
        self.open.push(name.to_owned());
        Ok(())
    }

    fn read_tag(&self, start: &BytesStart<'_>, at: usize) -> Result<Tag, XmlError> {
        let name = start.name().into_inner();
        let wrong = |within: usize, what: &str| {
            let at = at.saturating_add(within);
            malformed(self.xml, at, format!("in <{name}>: {what}"))
        };
        let mut tag = Tag {
            attributes: String::new(),
            is_foreign: start.name().prefix().is_some(),
        };
        for (count, attribute) in start.attributes().enumerate() {
            if count >= MAX_ATTRIBUTES {
                return Err(wrong(0, &format!("more than {MAX_ATTRIBUTES} attributes")));
            }
            let attribute = attribute.map_err(|error| {
                let (within, what) = explain_attribute(&error);
                wrong(within, what)
            })?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| wrong(0, &explain(&error)))?;
            if let Some(found) = value.chars().find(|&c| !is_allowed(c)) {
                return Err(wrong(0, &forbidden(found)));
            }
            if attribute.value.contains('<') {
                return Err(wrong(0, "expected &lt; for a bare < in a value"));
            }
            let key = attribute.key.into_inner();
            if key == "xmlns" {
                // Of the root it says nothing: libvirt's own domains have none.
                tag.is_foreign |= !self.open.is_empty();
            } else if attribute.key.prefix().is_none() {
                // Still escaped, so that the second reading sees what the first saw.
                let value = attribute.value.replace('"', "&quot;");
                tag.attributes.extend([" ", key, "=\"", &value, "\""]);
            }
        }
        Ok(tag)
    }

    /// A start tag of a domain's own: perhaps a disk begins, or is inside one.
    fn take(&mut self, name: &str, attributes: &str, at: usize) -> Result<(), XmlError> {
        if name == "disk" && self.is_in(&["domain", "devices"]) {
            if self.found.disks.len() >= MAX_DISKS {
                return Err(XmlError::TooManyDisks { limit: MAX_DISKS });
            }
            self.disk = Some(Fragment::new(self.line_of(at)));
        }
        if let Some(disk) = &mut self.disk {
            let depth = self.open.len().saturating_sub(DISK_DEPTH);
            disk.begin(name, attributes, depth);
        } else if self.is_in(&["domain"]) {
            match name {
                "name" => self.found.name = Some(String::new()),
                "uuid" => self.found.uuid = Some(String::new()),
                _ => {}
            }
        }
        Ok(())
    }

    /// An end tag; the reader has seen to it that it closes the element opened last.
    fn end(&mut self) {
        let Some(name) = self.open.pop() else { return };
        if let Some(depth) = self.passed_over {
            if depth == self.open.len() {
                self.passed_over = None;
            }
            return;
        }
        if let Some(disk) = &mut self.disk {
            disk.end(&name, self.open.len().saturating_sub(DISK_DEPTH));
        }
        if self.is_in(&["domain", "devices"]) {
            self.found.disks.extend(self.disk.take());
        }
    }

    fn text(&mut self, text: &str, at: usize) -> Result<(), XmlError> {
        if self.open.is_empty() && !text.trim_start_matches('\u{feff}').trim().is_empty() {
            let expected = if self.rooted {
                "the end of the text"
            } else {
                "<domain>"
            };
            return Err(malformed(
                self.xml,
                at,
                format!("expected {expected}, found other text"),
            ));
        }
        if self.passed_over.is_none() {
            let into = if self.is_in(&["domain", "name"]) {
                &mut self.found.name
            } else if self.is_in(&["domain", "uuid"]) {
                &mut self.found.uuid
            } else {
                return Ok(());
            };
            into.get_or_insert_default().push_str(text);
        }
        Ok(())
    }

    /// The character an `&...;` stands for: by number, or one of the five XML itself knows.
    fn resolve(&self, reference: &BytesRef<'_>, at: usize) -> Result<char, XmlError> {
        let character = reference
            .resolve_char_ref()
            .map_err(|error| malformed(self.xml, at, explain(&error)))?;
        if let Some(character) = character {
            if is_allowed(character) {
                return Ok(character);
            }
            return Err(malformed(self.xml, at, forbidden(character)));
        }
        let name = reference.xml10_content();
        resolve_predefined_entity(&name)
            .and_then(|text| text.chars().next())
            .ok_or_else(|| malformed(self.xml, at, undefined(&name)))
    }

    fn finish(self) -> Result<Scan, XmlError> {
        let expected = match self.open.last() {
            Some(name) => format!("</{name}>"),
            None if self.rooted => return Ok(self.found),
            None => "<domain>".to_owned(),
        };
        let what = format!("expected {expected}, found the end of the text");
        Err(malformed(self.xml, self.xml.len(), what))
    }

    /// A second `<name>` or `<uuid>` of the domain: the first one counts, as for libvirt.
    fn is_repeated(&self, name: &str) -> bool {
        self.is_in(&["domain"])
            && match name {
                "name" => self.found.name.is_some(),
                "uuid" => self.found.uuid.is_some(),
                _ => false,
            }
    }

    /// The line of `offset`, which must not lie before the one asked for last.
    fn line_of(&mut self, offset: usize) -> usize {
        let (from, line) = self.counted;
        let between = self.xml.get(from..offset).unwrap_or_default();
        self.counted = (offset, line.saturating_add(between.matches('\n').count()));
        self.counted.1
    }

    /// Exactly these elements are open.
    fn is_in(&self, path: &[&str]) -> bool {
        self.open
            .iter()
            .map(String::as_str)
            .eq(path.iter().copied())
    }
}

/// Tells what else libvirt wraps around a domain.
fn must_be_domain(root: &str) -> Result<(), XmlError> {
    Err(match root {
        "domain" => return Ok(()),
        "domstatus" => XmlError::RunningDomain,
        "domainsnapshot" => XmlError::Snapshot,
        "domaincheckpoint" => XmlError::Checkpoint,
        "domainbackup" => XmlError::Backup,
        _ => XmlError::NotADomain {
            root: root.to_owned(),
        },
    })
}

/// Whether XML 1.0 allows the character (production 2, "Char").
fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

fn forbidden(character: char) -> String {
    format!(
        "the character U+{:04X}, which XML does not allow",
        u32::from(character)
    )
}

fn malformed(xml: &str, offset: usize, what: String) -> XmlError {
    XmlError::Malformed {
        place: Place::of(xml, offset),
        what,
    }
}

/// The reader's sentence without its classes of errors.
fn explain(error: &quick_xml::Error) -> String {
    match error {
        quick_xml::Error::Syntax(error) => error.to_string(),
        quick_xml::Error::IllFormed(error) => error.to_string(),
        quick_xml::Error::Escape(EscapeError::UnrecognizedEntity(_, name)) => undefined(name),
        quick_xml::Error::Escape(EscapeError::UnterminatedEntity(_)) => {
            "expected ; after &, or &amp; for a bare &".to_owned()
        }
        other => other.to_string(),
    }
}

fn undefined(entity: &str) -> String {
    format!("the entity &{entity}; is not defined")
}

/// Where in a tag an attribute is wrong, in bytes from its `<`, and how.
fn explain_attribute(error: &AttrError) -> (usize, &'static str) {
    let (position, what) = match error {
        AttrError::ExpectedEq(position) => (position, "expected = after the attribute's name"),
        AttrError::ExpectedValue(position) => (position, "expected a value after ="),
        AttrError::UnquotedValue(position) => (position, "expected a quote before the value"),
        AttrError::ExpectedQuote(position, _) => (position, "expected a quote after the value"),
        AttrError::Duplicated(position, _) => (position, "the attribute stands here a second time"),
    };
    (position.saturating_add(1), what)
}

/// Positions are within a text of at most [`MAX_LENGTH`].
fn to_offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
