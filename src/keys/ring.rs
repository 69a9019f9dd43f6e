//! All keys of a run, which are tried on what is encrypted, one after the other.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cause;
use crate::config::Config;
use crate::interrupt::Interrupt;
use crate::keys::askpass::Askpass;
use crate::keys::container::{Container, Key, KeyError, Secret};
use crate::keys::passphrase::Passphrase;
use crate::keys::selector::{ALL, KeySelector, SelectedKey};
use crate::keys::source::KeySource;
use crate::keys::terminal::{NoAnswer, Terminal};

/// The credentials that are tried besides `virt-fsck.key.ID`: our own, and the one by which systemd's
/// tools take the passphrase of any device (systemd-cryptsetup(8)).
const CREDENTIAL: &str = "virt-fsck.key";
const SYSTEMD_CREDENTIAL: &str = "cryptsetup.passphrase";

/// How often one is asked for the passphrase of a device.
const MOST_QUESTIONS: u32 = 3;

/// All keys of a run.
#[derive(Debug, Default)]
pub struct Keys {
    selectors: Vec<KeySelector>,
    config: Config,
    /// The folder of the credentials.
    credentials: Option<PathBuf>,
    /// What was typed or told by a program, and was right for a device.
    answered: Vec<Passphrase>,
    terminal: Terminal,
}

/// What a source was worth.
enum Tried<T> {
    Right(T),
    Wrong,
    /// It gives no key: why.
    Nothing(String),
}

impl<T> From<Option<T>> for Tried<T> {
    fn from(opened: Option<T>) -> Self {
        opened.map_or(Self::Wrong, Self::Right)
    }
}

/// A device on which keys are tried.
struct Trial<'a, F> {
    container: &'a Container,
    interrupt: &'a mut Interrupt,
    opens: F,
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

    /// What a file holds. guestfish takes a line; cryptsetup the file as it is.
    async fn with_content<T, E>(&mut self, path: &Path) -> Result<Tried<T>, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        let whole = match Passphrase::of_file(path) {
            Ok(whole) => whole,
            Err(error) => return Ok(Tried::Nothing(cause::sentence(&error))),
        };
        self.with_any(whole.line_or_whole()).await
    }

    async fn with_any<T, E>(
        &mut self,
        passphrases: impl IntoIterator<Item = Passphrase>,
    ) -> Result<Tried<T>, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        for passphrase in passphrases {
            if let Some(opened) = self.with(&Key::Passphrase(passphrase)).await? {
                return Ok(Tried::Right(opened));
            }
        }
        Ok(Tried::Wrong)
    }
}

impl Keys {
    /// The keys of the command line and of the configuration, and systemd's credentials.
    pub fn new(selectors: Vec<KeySelector>, config: &Config) -> Self {
        Self {
            selectors,
            config: config.clone(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            ..Self::default()
        }
    }

    /// Calls `opens` with one key after the other until one is right, and gives what it has given
    /// for that. [`KeySource`] says where they come from, and in which order.
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
            container,
            interrupt,
            opens,
        };
        let mut tried = Vec::new();
        let mut no_answer = None;
        for source in self.sources(container) {
            let shown = &container.shown;
            match self.attempt(&source, &mut trial).await? {
                Tried::Right(opened) => {
                    tracing::debug!("key for {shown}: {source}: right");
                    return Ok(opened);
                }
                Tried::Wrong => {
                    tracing::debug!("key for {shown}: {source}: wrong");
                    tried.push(source.to_string());
                }
                Tried::Nothing(why) if source == KeySource::Terminal => no_answer = Some(why),
                Tried::Nothing(why) => {
                    tracing::debug!("key for {shown}: {source}: cannot be read: {why}");
                    tried.push(format!("{source}, which cannot be read ({why})"));
                }
            }
        }
        Err(no_key(container, &tried, no_answer.as_deref()))
    }

    /// All that may give its key, in the order of [`KeySource`].
    fn sources(&self, container: &Container) -> Vec<KeySource> {
        let selectors = |is_meant: &dyn Fn(&str) -> bool| {
            let meant = self.selectors.iter().filter(|known| is_meant(&known.id));
            meant.cloned().collect::<Vec<_>>()
        };
        let configured = |is_meant: &dyn Fn(&str) -> bool| {
            let meant = self.config.keys.iter().filter(|known| is_meant(&known.id));
            meant.cloned().collect::<Vec<_>>()
        };
        let names_it = |id: &str| id != ALL && container.is_called(id);
        let is_all = |id: &str| id == ALL;
        let mut sources = Vec::new();
        sources.extend(selectors(&names_it).into_iter().map(KeySource::Selector));
        sources.extend(container.file.clone().map(KeySource::HostFile));
        sources.extend(configured(&names_it).into_iter().map(KeySource::Configured));
        sources.extend(container.secret.clone().map(KeySource::Secret));
        if !container.tokens.is_empty() && !container.is_of_a_guest {
            sources.push(KeySource::Tokens(container.tokens.clone()));
        }
        sources.extend(self.credentials(container).map(KeySource::Credential));
        let for_all = selectors(&is_all);
        sources.extend(for_all.into_iter().map(KeySource::SelectorForAll));
        let for_all = configured(&is_all);
        sources.extend(for_all.into_iter().map(KeySource::ConfiguredForAll));
        if !self.answered.is_empty() {
            sources.push(KeySource::Answered(self.answered.clone()));
        }
        if !self.config.askpass.is_empty() {
            let askpass = Askpass(self.config.askpass.clone());
            sources.push(KeySource::Askpass(askpass));
        }
        sources.push(KeySource::Terminal);
        sources
    }

    /// The credentials that may be meant for it and are there.
    fn credentials(&self, container: &Container) -> impl Iterator<Item = PathBuf> {
        let of_ids = container.ids.iter().filter(|id| !id.contains('/'));
        let names = of_ids
            .map(|id| format!("{CREDENTIAL}.{id}"))
            .chain([CREDENTIAL, SYSTEMD_CREDENTIAL].map(str::to_owned));
        let folder = self.credentials.iter();
        let paths = folder.flat_map(move |folder| names.clone().map(|name| folder.join(name)));
        paths.filter(|path| path.exists())
    }

    async fn attempt<F, T, E>(
        &mut self,
        source: &KeySource,
        trial: &mut Trial<'_, F>,
    ) -> Result<Tried<T>, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        match source {
            KeySource::Selector(selector) | KeySource::SelectorForAll(selector) => {
                match &selector.key {
                    SelectedKey::Passphrase(key) => trial.with_any([key.clone()]).await,
                    SelectedKey::File(path) => trial.with_content(path).await,
                    SelectedKey::Token if trial.container.tokens.is_empty() => {
                        Ok(Tried::Nothing("it has none".to_owned()))
                    }
                    SelectedKey::Token => Ok(trial.with(&Key::Token).await?.into()),
                }
            }
            KeySource::HostFile(file) => match File::open(&file.path) {
                Ok(_) => {
                    warn_of_others(&file.path);
                    Ok(trial.with(&Key::File(file.clone())).await?.into())
                }
                Err(error) => Ok(Tried::Nothing(cause::sentence(&error))),
            },
            KeySource::Configured(entry) | KeySource::ConfiguredForAll(entry) => {
                warn_of_others(&entry.file);
                trial.with_content(&entry.file).await
            }
            KeySource::Secret(Secret::Value(value)) => trial.with_any([value.clone()]).await,
            KeySource::Secret(Secret::Unreadable(why)) => Ok(Tried::Nothing(why.clone())),
            KeySource::Tokens(_) => Ok(trial.with(&Key::Token).await?.into()),
            KeySource::Credential(path) => trial.with_content(path).await,
            KeySource::Answered(answers) => trial.with_any(answers.clone()).await,
            KeySource::Askpass(askpass) => self.ask(Some(askpass), trial).await,
            KeySource::Terminal => self.ask(None, trial).await,
        }
    }

    /// Asks by the program, or else at the terminal, until the answer is right.
    async fn ask<F, T, E>(
        &mut self,
        askpass: Option<&Askpass>,
        trial: &mut Trial<'_, F>,
    ) -> Result<Tried<T>, KeyError<E>>
    where
        F: AsyncFnMut(&Key) -> Result<Option<T>, E>,
        E: std::error::Error + 'static,
    {
        let question = format!("Passphrase for {}:", trial.container.shown);
        let mut wrong = None;
        for _ in 0..MOST_QUESTIONS {
            let answer = match askpass {
                Some(askpass) => askpass.ask(&question, trial.interrupt).await,
                None => {
                    let question = format!("{question} ");
                    self.terminal.ask(&question, trial.interrupt).await
                }
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(NoAnswer::Interrupted) => return Err(KeyError::Interrupted),
                Err(other) => return Ok(Tried::Nothing(other.to_string())),
            };
            if askpass.is_some() && wrong.as_ref() == Some(&answer) {
                // There is no person behind it who would type another.
                break;
            }
            if let Some(opened) = trial.with(&Key::Passphrase(answer.clone())).await? {
                self.answered.push(answer);
                return Ok(Tried::Right(opened));
            }
            wrong = Some(answer);
        }
        Ok(Tried::Wrong)
    }
}

/// A key file that others can read is no secret; cryptsetup says so too. It is used all the same.
fn warn_of_others(path: &Path) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return;
    };
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        let path = path.display();
        tracing::warn!("virt-fsck: others can read the key file {path}: chmod go= {path}");
    }
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
    let id = container.ids.first().map_or(ALL, String::as_str);
    if container.is_of_a_guest && !container.tokens.is_empty() {
        let kinds = container.tokens.join(", ");
        sentence.push_str(&format!(
            "; its header has tokens ({kinds}), which are asked with --key {id}:clevis only"
        ));
    }
    if let Some(reason) = no_answer {
        sentence.push_str(&format!(
            "; {reason}, so give --key {id}:file:FILE, or name a key file for it in \
             /etc/virt-fsck.toml"
        ));
    }
    KeyError::NoKey(sentence)
}

#[cfg(test)]
mod tests;
