//! Ready-made checks. Each is about something that no path or name can say.

use crate::operation::Act;

/// A preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preset {
    /// Starting a program that has no file on disk: from `memfd:`, `/run/shm/` or `/dev/shm/`.
    FilelessExec,
    /// Mapping anonymous memory as executable. Stops just-in-time compilers, too.
    AnonymousMapExec,
    /// Opening the environment of another process: `/proc/PID/environ`, `/proc/PID/task/TID/environ`.
    ProtectEnv,
    /// Opening anything of another process: `/proc/PID/…`.
    ProtectProc,
    /// Starting a program out of an interactive session that was brought into the container.
    Exec,
}

impl Preset {
    /// All of them with their names.
    pub const NAMES: [(&'static str, Preset); 5] = [
        ("filelessExec", Preset::FilelessExec),
        ("anonymousMapExec", Preset::AnonymousMapExec),
        ("protectEnv", Preset::ProtectEnv),
        ("protectProc", Preset::ProtectProc),
        ("exec", Preset::Exec),
    ];

    /// The preset of a name.
    pub fn of(name: &str) -> Option<Preset> {
        let mut all = Preset::NAMES.iter();
        all.find(|(known, _)| *known == name).map(|(_, own)| *own)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let mut all = Preset::NAMES.iter();
        all.find(|(_, own)| *own == self)
            .map_or("", |(name, _)| *name)
    }

    /// Whether the preset is about the operation, whoever does it.
    pub(crate) fn about(self, act: &Act) -> bool {
        match (self, act) {
            (Preset::FilelessExec, Act::Exec { path, .. }) => fileless(path),
            (Preset::Exec, Act::Exec { .. }) | (Preset::AnonymousMapExec, Act::MapExec) => true,
            (Preset::ProtectEnv, Act::Open { path, .. }) => {
                of_process(path).is_some_and(|(_, rest)| of_thread(rest) == "environ")
            }
            (Preset::ProtectProc, Act::Open { path, .. }) => of_process(path).is_some(),
            _ => false,
        }
    }
}

fn fileless(path: &str) -> bool {
    ["memfd:", "/memfd:", "/run/shm/", "/dev/shm/"]
        .iter()
        .any(|front| path.starts_with(front))
}

/// `/proc/7/environ` → 7 and `environ`.
pub(crate) fn of_process(path: &str) -> Option<(u32, &str)> {
    let (pid, rest) = path.strip_prefix("/proc/")?.split_once('/')?;
    Some((pid.parse().ok()?, rest))
}

/// A process shows in each of its threads what it shows itself: `task/7/environ` → `environ` (proc(5)).
fn of_thread(rest: &str) -> &str {
    let inner = rest
        .strip_prefix("task/")
        .and_then(|rest| rest.split_once('/'));
    let inner = inner.filter(|(thread, _)| thread.parse::<u32>().is_ok());
    inner.map_or(rest, |(_, inner)| inner)
}
