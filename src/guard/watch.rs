//! Watching the domains while one is worked on: what starts all the same stops the work at once.
//!
//! libvirt marks a domain as starting before QEMU opens its disks, and tells of it in an event only
//! when it runs. So the domain itself is asked every moment, and the events only hurry the question.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;
use virt::connect::Connect;
use virt::{event, sys};

use crate::domain::libvirt::Libvirt;
use crate::guard::domain;
use crate::guard::others::{self, Wants};
use crate::interrupt::Alarm;

/// How often the domain itself is asked.
const LOOK: Duration = Duration::from_millis(100);

/// How often a domain that runs is asked for its disks again: one can be plugged in.
const ALL_AGAIN: Duration = Duration::from_secs(5);

/// An event came that has not been followed up.
static NOTICED: AtomicBool = AtomicBool::new(false);

/// What is watched for.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The domain that is worked on, where libvirt knows it.
    pub domain: Option<(String, Uuid)>,
    /// What is done with its disks.
    pub disks: Vec<(PathBuf, Wants)>,
    /// What to raise.
    pub alarm: Alarm,
}

/// A watch over the domains of this host.
#[derive(Debug)]
pub struct Watch {
    uris: Vec<String>,
    shared: Arc<Mutex<Option<Watched>>>,
    started: Once,
}

/// What is watched for, as long as this lives.
#[derive(Debug)]
#[must_use = "nothing is watched for any more when it is dropped"]
pub struct Watching<'a>(&'a Watch);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        *locked(&self.0.shared) = None;
    }
}

fn locked(shared: &Mutex<Option<Watched>>) -> MutexGuard<'_, Option<Watched>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// A watch over the domains of these drivers; the first is the one that knows the domain that is
    /// worked on, if any does.
    pub fn over(uris: Vec<String>) -> Self {
        Self {
            uris,
            shared: Arc::default(),
            started: Once::new(),
        }
    }

    /// Begins to watch for something, instead of what was watched for before. The questions are asked
    /// by a thread of its own, so that whoever waits for a checker need not.
    pub fn begin(&self, watched: Watched) -> Watching<'_> {
        *locked(&self.shared) = Some(watched);
        if !self.uris.is_empty() {
            self.started.call_once(|| {
                let uris = self.uris.clone();
                let shared = Arc::clone(&self.shared);
                // It ends with the process. Without a thread the domain is still asked before each
                // filesystem.
                let _thread = std::thread::Builder::new()
                    .name("watch".to_owned())
                    .spawn(move || watch(&uris, &shared));
            });
        }
        Watching(self)
    }
}

/// A driver that is asked.
struct Driver {
    uri: String,
    connection: Option<Connection>,
    /// The active domains whose disks were compared: their UUIDs, and the numbers they have for as
    /// long as they run.
    compared: HashSet<(Uuid, u32)>,
}

struct Connection {
    libvirt: Libvirt,
    /// Open for as long as its events are wanted.
    _events: Option<Connect>,
}

fn watch(uris: &[String], shared: &Mutex<Option<Watched>>) {
    // Before any connection of this thread (virEventRegisterDefaultImpl).
    let has_events = event::event_register_default_impl().is_ok()
        // The loop returns at least this often.
        && event::event_add_timeout(milliseconds(LOOK), |_, _| {}, std::ptr::null_mut()).is_ok();
    let mut drivers: Vec<Driver> = uris
        .iter()
        .map(|uri| Driver {
            uri: uri.clone(),
            connection: None,
            compared: HashSet::new(),
        })
        .collect();
    let mut last: Option<Instant> = None;
    let mut last_all = Instant::now();
    loop {
        let is_due = last.is_none_or(|last| last.elapsed() >= LOOK);
        if NOTICED.swap(false, Ordering::Relaxed) || is_due {
            if last_all.elapsed() >= ALL_AGAIN {
                drivers
                    .iter_mut()
                    .for_each(|driver| driver.compared.clear());
                last_all = Instant::now();
            }
            // Asked without the lock: libvirt may take its time, and who works must not wait for it.
            let watched = locked(shared).clone();
            if let Some(watched) = watched {
                let answers = drivers.iter_mut().enumerate().map(|(number, driver)| {
                    let own = watched.domain.as_ref().filter(|_| number == 0);
                    driver.look(own, &watched, has_events)
                });
                let worst = answers.max();
                tell(shared, &watched, worst);
            }
            last = Some(Instant::now());
        }
        if !has_events || event::event_run_default_impl().is_err() {
            std::thread::sleep(LOOK);
        }
    }
}

/// What a driver says of the domains that have to do with what is worked on; the worst comes last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// None is active.
    Quiet,
    /// It does not say anything, so all stays as it was.
    Unknown,
    /// One is about to start, and may yet fail to: the hook and QEMU's locks see to that.
    Starting,
    /// One is active: the reason to stop.
    Active(String),
}

/// Tells whoever works, if what was asked about is still what is worked on.
fn tell(shared: &Mutex<Option<Watched>>, about: &Watched, worst: Option<Answer>) {
    let now = locked(shared);
    let is_same = |now: &Watched| now.domain == about.domain && now.disks == about.disks;
    if !now.as_ref().is_some_and(is_same) {
        return;
    }
    match worst {
        Some(Answer::Active(reason)) => about.alarm.raise(reason),
        Some(Answer::Starting) => about.alarm.hold(true),
        Some(Answer::Quiet) => about.alarm.hold(false),
        Some(Answer::Unknown) | None => {}
    }
}

impl Driver {
    /// What it says. One that does not answer is connected to anew the next time.
    fn look(
        &mut self,
        own: Option<&(String, Uuid)>,
        watched: &Watched,
        has_events: bool,
    ) -> Answer {
        if self.connection.is_none() {
            self.connection = Connection::open(&self.uri, has_events);
        }
        let Some(connection) = &self.connection else {
            return Answer::Unknown;
        };
        let answer = active_against(&connection.libvirt, own, watched, &mut self.compared);
        answer.unwrap_or_else(|_| {
            self.connection = None;
            Answer::Unknown
        })
    }
}

impl Connection {
    fn open(uri: &str, has_events: bool) -> Option<Self> {
        let libvirt = Libvirt::connect(uri).ok()?;
        let events = match has_events {
            true => Connect::open_read_only(Some(uri)).ok(),
            false => None,
        };
        let events = events.filter(listen);
        Some(Self {
            libvirt,
            _events: events,
        })
    }
}

/// Asks the domain itself, and all that are active for what they use.
fn active_against(
    libvirt: &Libvirt,
    own: Option<&(String, Uuid)>,
    watched: &Watched,
    compared: &mut HashSet<(Uuid, u32)>,
) -> Result<Answer, others::OthersError> {
    if let Some((name, uuid)) = own {
        let condition = libvirt.condition(&libvirt.find(&uuid.to_string())?)?;
        match domain::refusal(name, condition) {
            Some(_) if condition.is_starting() => return Ok(Answer::Starting),
            Some(reason) => return Ok(Answer::Active(reason)),
            None => {}
        }
    }
    let active = libvirt.active()?;
    let numbers: Vec<_> = active
        .iter()
        .map(|known| (known.uuid, known.number()))
        .collect();
    compared.retain(|known| numbers.contains(known));
    for (known, number) in active.iter().zip(numbers) {
        if compared.contains(&number) {
            continue;
        }
        let used = others::named_by(libvirt, known)?;
        let mut disks = watched.disks.iter();
        let refusal = disks.find_map(|(path, wants)| {
            let mut used = used.iter();
            used.find_map(|disk| disk.refusal(path, wants))
        });
        match refusal {
            Some(_) if libvirt.condition(known)?.is_starting() => return Ok(Answer::Starting),
            Some(reason) => return Ok(Answer::Active(reason)),
            None => compared.insert(number),
        };
    }
    Ok(Answer::Quiet)
}

/// Asks for the events of the life of all domains. Tells whether they will come.
#[expect(unsafe_code, reason = "the bindings have no events of domains")]
fn listen(connection: &Connect) -> bool {
    // SAFETY: the connection is open; the callback has the type that this function wants, lives as
    // long as the process, and is given nothing.
    let registered = unsafe {
        sys::virConnectDomainEventRegister(
            connection.as_ptr(),
            Some(noticed),
            std::ptr::null_mut(),
            None,
        )
    };
    registered == 0
}

#[expect(unsafe_code, reason = "called by libvirt")]
unsafe extern "C" fn noticed(
    _connection: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    _event: libc::c_int,
    _detail: libc::c_int,
    _nothing: *mut libc::c_void,
) -> libc::c_int {
    NOTICED.store(true, Ordering::Relaxed);
    0
}

fn milliseconds(duration: Duration) -> libc::c_int {
    libc::c_int::try_from(duration.as_millis()).unwrap_or(libc::c_int::MAX)
}
