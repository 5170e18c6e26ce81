//! Which image acts: executable, command line and parent of every process that is told of, by exec id.
//!
//! The kernel draws an exec id at each exec and a fork inherits it, so an id names an image and not a process: pid
//! reuse cannot mix two images up. Entries come from exec records; an entry leaves a while after its process did, and
//! the oldest leave first when the table is full. A record whose image is not in the table (the sensor was started
//! later, the exec record was lost) is completed from `/proc` while the process is there.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::redact::Redact;

/// How long an image can be named after its process ended.
const GRACE: Duration = Duration::from_secs(30);
/// How long an answer of `/proc` is believed: its number may soon be another process's.
const BELIEVED: Duration = Duration::from_secs(1);
/// Answers kept.
const ANSWERS: usize = 4096;

/// An image that runs, with arguments already redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Path of the executable: the file that runs.
    pub exe: String,
    /// The command line as it was called: `/bin/cat /etc/hosts` even where the file that runs is /usr/bin/cat.
    pub command: String,
    /// The argument list.
    pub args: Vec<String>,
    /// Path of the parent process's executable.
    pub parent_exe: String,
    /// The executable came from `/proc` after the fact, not from the kernel's record.
    pub from_proc: bool,
}

impl Image {
    /// An image by its parts. `called` is the path that the caller of exec gave, `args` the argument list, whose first
    /// is whatever the caller chose and so is not believed.
    pub fn new(exe: String, called: &str, args: Vec<String>, parent_exe: String) -> Self {
        let name = if called.starts_with('/') {
            called
        } else {
            &exe
        };
        Self {
            command: command_line(name, &args),
            exe,
            args,
            parent_exe,
            from_proc: false,
        }
    }
}

/// `/bin/cat /etc/shadow`: the path, then the arguments after the program's own name.
pub fn command_line(path: &str, args: &[String]) -> String {
    let mut line = path.to_owned();
    for argument in args.iter().skip(1) {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

/// What `/proc` said of processes whose exec nobody saw, for a moment: a busy one would be asked for at every event.
#[derive(Debug, Default)]
pub struct Asked(HashMap<u32, (Instant, Arc<Image>)>);

impl Asked {
    /// The answer about a process, or a new one from `ask`.
    pub fn image(
        &mut self,
        host_pid: u32,
        now: Instant,
        ask: impl FnOnce() -> Option<Image>,
    ) -> Option<Arc<Image>> {
        if let Some((since, image)) = self.0.get(&host_pid)
            && now.duration_since(*since) < BELIEVED
        {
            return Some(Arc::clone(image));
        }
        if self.0.len() >= ANSWERS {
            self.0.clear();
        }
        let image = Arc::new(ask()?);
        self.0.insert(host_pid, (now, Arc::clone(&image)));
        Some(image)
    }
}

#[derive(Debug)]
struct Entry {
    image: Arc<Image>,
    /// The process that holds it open: the one that called exec, or later a fork that was seen to act.
    host_pid: u32,
    exited: bool,
}

/// The table.
#[derive(Debug)]
pub struct Processes {
    entries: HashMap<u64, Entry>,
    /// Ids whose process ended, oldest first.
    leaving: VecDeque<(Instant, u64)>,
    /// Ids in order of arrival, for the bound.
    arrived: VecDeque<u64>,
    capacity: usize,
}

impl Processes {
    /// A table of at most `capacity` images.
    pub fn new(capacity: usize) -> Self {
        let (entries, leaving, arrived) = Default::default();
        Self {
            entries,
            leaving,
            arrived,
            capacity: capacity.max(1),
        }
    }

    /// An exec succeeded.
    pub fn exec(&mut self, exec_id: u64, host_pid: u32, image: Image) -> Arc<Image> {
        let image = Arc::new(image);
        let entry = Entry {
            image: Arc::clone(&image),
            host_pid,
            exited: false,
        };
        if self.entries.insert(exec_id, entry).is_none() {
            self.arrived.push_back(exec_id);
            self.bound();
        }
        image
    }

    /// A process ended. A fork that never called exec has its parent's image, which stays.
    pub fn exit(&mut self, exec_id: u64, host_pid: u32, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&exec_id)
            && entry.host_pid == host_pid
        {
            entry.exited = true;
            self.leaving.push_back((now, exec_id));
        }
        self.expire(now);
    }

    /// The image of a record, if it is known. Using it keeps it.
    pub fn get(&mut self, exec_id: u64, host_pid: u32) -> Option<Arc<Image>> {
        let entry = self.entries.get_mut(&exec_id)?;
        if entry.exited && entry.host_pid != host_pid {
            // A fork outlives the process that called exec.
            entry.exited = false;
            entry.host_pid = host_pid;
        }
        Some(Arc::clone(&entry.image))
    }

    /// How many images are known.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(since, exec_id)) = self.leaving.front() {
            if now.duration_since(since) < GRACE {
                break;
            }
            self.leaving.pop_front();
            if self.entries.get(&exec_id).is_some_and(|entry| entry.exited) {
                self.entries.remove(&exec_id);
            }
        }
        // Ids of removed entries stay in the order of arrival until there are too many of them.
        if self.arrived.len() > 2 * self.capacity {
            self.arrived
                .retain(|exec_id| self.entries.contains_key(exec_id));
        }
    }

    fn bound(&mut self) {
        while self.entries.len() > self.capacity {
            let Some(oldest) = self.arrived.pop_front() else {
                return;
            };
            self.entries.remove(&oldest);
        }
    }
}

/// What `/proc` says of a process that may be gone: its image, or none. `root` is `/proc`.
pub fn from_proc(root: &Path, host_pid: u32, host_ppid: u32, redact: &Redact) -> Option<Image> {
    let exe = |pid: u32| -> Option<String> {
        let link = std::fs::read_link(root.join(pid.to_string()).join("exe")).ok()?;
        let path = link.to_string_lossy().into_owned();
        Some(
            path.strip_suffix(" (deleted)")
                .map(str::to_owned)
                .unwrap_or(path),
        )
    };
    let own = exe(host_pid)?;
    let raw = std::fs::read(root.join(host_pid.to_string()).join("cmdline")).unwrap_or_default();
    let mut args: Vec<String> = raw
        .strip_suffix(&[0])
        .unwrap_or(&raw)
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    redact.arguments(&mut args);
    let image = Image::new(own, "", args, exe(host_ppid).unwrap_or_default());
    Some(Image {
        from_proc: true,
        ..image
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(exe: &str) -> Image {
        Image::new(
            exe.to_owned(),
            exe,
            vec!["x".to_owned(), "1".to_owned()],
            "/bin/sh".to_owned(),
        )
    }

    #[test]
    fn an_image_leaves_a_while_after_its_process() {
        let mut table = Processes::new(10);
        let start = Instant::now();
        table.exec(7, 100, image("/bin/a"));
        table.exit(7, 100, start);
        assert_eq!(table.get(7, 100).unwrap().command, "/bin/a 1");
        table.exec(8, 101, image("/bin/b"));
        table.exit(8, 101, start + GRACE);
        assert!(table.get(7, 100).is_none());
        assert!(table.get(8, 101).is_some());
    }

    #[test]
    fn the_end_of_a_fork_does_not_take_its_parents_image() {
        let mut table = Processes::new(10);
        let start = Instant::now();
        table.exec(7, 100, image("/bin/a"));
        table.exit(7, 200, start);
        table.exit(9, 1, start + 2 * GRACE);
        assert!(table.get(7, 100).is_some());
    }

    #[test]
    fn a_fork_that_outlives_the_exec_keeps_the_image() {
        let mut table = Processes::new(10);
        let start = Instant::now();
        table.exec(7, 100, image("/sbin/daemon"));
        table.exit(7, 100, start);
        assert!(table.get(7, 101).is_some());
        table.exit(0, 0, start + 2 * GRACE);
        assert!(table.get(7, 101).is_some());
        table.exit(7, 101, start + 3 * GRACE);
        table.exit(0, 0, start + 5 * GRACE);
        assert!(table.get(7, 101).is_none());
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let mut table = Processes::new(3);
        for id in 1..=5 {
            table.exec(id, 1, image("/bin/a"));
        }
        assert_eq!(table.count(), 3);
        assert!(table.get(2, 1).is_none());
        assert!(table.get(3, 1).is_some());
    }

    #[test]
    fn memory_stays_bounded_however_many_processes_come_and_go() {
        let mut table = Processes::new(100);
        let start = Instant::now();
        for id in 0..10_000_u32 {
            let now = start + Duration::from_secs(u64::from(id));
            table.exec(u64::from(id), id, image("/bin/a"));
            table.exit(u64::from(id), id, now);
        }
        assert!(table.entries.len() <= 100, "{}", table.entries.len());
        assert!(table.arrived.len() <= 201, "{}", table.arrived.len());
        assert!(table.leaving.len() <= 100, "{}", table.leaving.len());
    }

    #[test]
    fn a_command_line_is_as_it_was_called_but_never_as_it_calls_itself() {
        let image = |called| {
            let args = vec!["/sbin/init".to_owned(), "-x".to_owned()];
            Image::new("/usr/bin/cat".to_owned(), called, args, String::new()).command
        };
        assert_eq!(image("/bin/cat"), "/bin/cat -x");
        assert_eq!(image("./cat"), "/usr/bin/cat -x");
        assert_eq!(image(""), "/usr/bin/cat -x");
    }

    #[test]
    fn an_answer_of_proc_is_believed_for_a_moment() {
        let mut asked = Asked::default();
        let start = Instant::now();
        let exe = |image: Option<Arc<Image>>| image.map(|image| image.exe.clone());
        let mut ask = |path: Option<&str>, now| exe(asked.image(7, now, || path.map(image)));
        assert_eq!(ask(None, start), None);
        assert_eq!(ask(Some("/bin/a"), start).as_deref(), Some("/bin/a"));
        assert_eq!(ask(Some("/bin/b"), start).as_deref(), Some("/bin/a"));
        let later = start + BELIEVED;
        assert_eq!(ask(Some("/bin/b"), later).as_deref(), Some("/bin/b"));
        assert_eq!(ask(None, later + BELIEVED), None);
    }

    #[test]
    fn answers_of_proc_stay_bounded() {
        let mut asked = Asked::default();
        for pid in 0..3 * ANSWERS as u32 {
            asked.image(pid, Instant::now(), || Some(image("/bin/a")));
        }
        assert!(asked.0.len() <= ANSWERS, "{}", asked.0.len());
    }

    #[test]
    fn proc_tells_of_a_live_process() {
        let me = std::process::id();
        let image = from_proc(Path::new("/proc"), me, me, &Redact::default()).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(Path::new(&image.exe), exe);
        assert_eq!(image.parent_exe, image.exe);
        assert!(image.from_proc && image.command.starts_with(&image.exe));
        assert!(from_proc(Path::new("/proc"), u32::MAX, 1, &Redact::default()).is_none());
    }
}
