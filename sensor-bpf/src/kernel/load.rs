//! Loading: from the best tier down to the first that the kernel takes, with the reason why the better ones are not.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Func, Typedef};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, PrintLevel};

use super::probe::{self, Probe};
use super::skel::{OpenSensorSkel, SensorSkel, SensorSkelBuilder};
use super::words::Words;
use super::{Contain, KernelConfig};
use crate::rules::Secret;

/// Tracepoints that the native tier uses where they are.
const OPTIONAL_POINTS: &[&str] = &["cap_capable"];

/// Why nothing is loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This process may not.
    #[error("kernel programs need root with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; {0}")]
    NotPermitted(String),
    /// The kernel does not tell its types.
    #[error(
        "the kernel does not tell its types: /sys/kernel/btf/vmlinux is missing; it needs CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoTypes,
    /// The programs are refused, by the verifier or otherwise.
    #[error(
        "the kernel refuses the programs of tier {tier}: {source}{}",
        last_line(log)
    )]
    Refused {
        /// Of which tier.
        tier: u8,
        /// Its answer.
        source: io::Error,
        /// What it wrote about it.
        log: String,
    },
    /// A program cannot be attached.
    #[error("cannot attach {program}: {source}")]
    Attach {
        /// Its name in `bpf/`.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The programs are attached, and the kernel does not heed them.
    #[error("the kernel takes the programs of tier {0} and does not heed them")]
    Unheeded(u8),
    /// Something else.
    #[error("cannot {what}: {source}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl LoadError {
    pub(super) fn other(what: &'static str, error: &libbpf_rs::Error) -> Self {
        Self::Other {
            what,
            source: io_error(error),
        }
    }
}

/// The programs in the kernel, and attached.
pub(super) struct Loaded {
    pub(super) skel: SensorSkel<'static>,
    pub(super) links: Vec<Link>,
    pub(super) words: Words,
    pub(super) secret: Secret,
    pub(super) probe: Probe,
}

/// Loads the best tier that works.
pub(super) fn best(config: &KernelConfig) -> Result<Loaded, LoadError> {
    listen_to_libbpf();
    check_privilege()?;
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(LoadError::NoTypes);
    }
    let limit = config.tier_limit.unwrap_or(1).clamp(1, 3);
    let mut reasons = Vec::new();
    for tier in limit..=3 {
        let refused = match probe::ruled_out(tier) {
            Some(reason) => reason,
            None => match load(tier, config) {
                Ok(mut loaded) => {
                    let told = loaded.skel.progs.on_capable.autoload();
                    loaded.probe = Probe::of(tier, config.contain, told, reasons.join("; "));
                    return Ok(loaded);
                }
                Err(error) if tier == 3 => return Err(error),
                Err(error) => error.to_string(),
            },
        };
        tracing::debug!(tier, %refused, "tier not available");
        reasons.push(format!("{}: {refused}", probe::name(tier)));
    }
    Err(LoadError::Unheeded(limit)) // not reached: tier 3 returns above
}

fn load(tier: u8, config: &KernelConfig) -> Result<Loaded, LoadError> {
    let secret = Secret::draw().map_err(|error| LoadError::Other {
        what: "draw a secret",
        source: io::Error::other(error.to_string()),
    })?;
    // reason: the skeleton borrows this for its whole life, which only 'static can name in a struct; 16 bytes a load
    let storage = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = SensorSkelBuilder::default()
        .open(storage)
        .map_err(|error| LoadError::other("open the programs", &error))?;
    configure(&mut open, tier, config, secret)?;
    LOG.with_borrow_mut(|log| *log = Some(String::new()));
    let loaded = open.load();
    let log = LOG.take().unwrap_or_default();
    let mut skel = loaded.map_err(|error| refused(tier, &error, log))?;
    let links = attach(&mut skel)?;
    let (Some(bss), Some(data)) = (
        skel.maps.bss_data.as_deref_mut(),
        skel.maps.data_data.as_deref_mut(),
    ) else {
        return Err(LoadError::Other {
            what: "map shared memory",
            source: io::ErrorKind::NotFound.into(),
        });
    };
    let words = Words::new(bss, data);
    words.set_own(std::process::id());
    if tier < 3 && !probe::canary_is_refused(&words) {
        return Err(LoadError::Unheeded(tier));
    }
    Ok(Loaded {
        skel,
        links,
        words,
        secret,
        probe: Probe::default(),
    })
}

fn refused(tier: u8, error: &libbpf_rs::Error, log: String) -> LoadError {
    let source = io_error(error);
    if tier == 3 && source.kind() == io::ErrorKind::PermissionDenied && log.is_empty() {
        return LoadError::NotPermitted(
            "the kernel refuses bpf(2) here, as in a container".to_owned(),
        );
    }
    LoadError::Refused { tier, source, log }
}

/// What programs are told before they are verified, and which of them are loaded at all.
fn configure(
    open: &mut OpenSensorSkel<'static>,
    tier: u8,
    config: &KernelConfig,
    secret: Secret,
) -> Result<(), LoadError> {
    let missing = || LoadError::Other {
        what: "set up the programs",
        source: io::ErrorKind::NotFound.into(),
    };
    let rodata = open.maps.rodata_data.as_deref_mut().ok_or_else(missing)?;
    rodata.hash_seed = secret.seed;
    rodata.hash_factor = secret.factor;
    rodata.native = u32::from(tier == 3);
    rodata.contain = u32::from(config.contain != Contain::None);
    rodata.contain_files = u32::from(config.contain == Contain::All);
    let bss = open.maps.bss_data.as_deref_mut().ok_or_else(missing)?;
    bss.next_exec_id = first_exec_id();
    let types = Btf::from_vmlinux().ok();
    for mut program in open.open_object_mut().progs_mut() {
        let section = program.section().to_string_lossy().into_owned();
        program.set_autoload(belongs(&section, tier) && is_offered(types.as_ref(), &section));
    }
    Ok(())
}

/// Whether the kernel has what an optional program attaches to: hooks on names exist only with CONFIG_SECURITY_PATH,
/// the tracepoint of capabilities since 6.14. Without BTF nothing loads anyway.
fn is_offered(types: Option<&Btf<'_>>, section: &str) -> bool {
    let Some(types) = types else { return true };
    let has = |function: &str| types.type_by_name::<Func<'_>>(function).is_some();
    match section.split_once('/') {
        Some(("lsm", hook)) if hook.starts_with("path_") => has(&format!("bpf_lsm_{hook}")),
        Some(("fmod_ret", function)) if function.starts_with("security_path_") => has(function),
        Some(("tp_btf", point)) if OPTIONAL_POINTS.contains(&point) => types
            .type_by_name::<Typedef<'_>>(&format!("btf_trace_{point}"))
            .is_some(),
        _ => true,
    }
}

fn belongs(section: &str, tier: u8) -> bool {
    match section.split_once('/') {
        Some(("lsm", _)) => tier == 1,
        Some(("fmod_ret", _)) => tier == 2,
        Some(("tp_btf", point)) if OPTIONAL_POINTS.contains(&point) => tier == 3,
        _ => true,
    }
}

/// Seconds since 1970 in the upper half: another start draws other ids.
fn first_exec_id() -> u64 {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    (seconds << 32) | 1
}

/// All programs but those for one cgroup, and those that run at every system call.
fn attach(skel: &mut SensorSkel<'static>) -> Result<Vec<Link>, LoadError> {
    let later = ["cgroup/", "tp_btf/sys_exit", "tp_btf/cap_capable"];
    let mut links = Vec::new();
    for program in skel.object_mut().progs_mut() {
        let section = program.section().to_string_lossy();
        if !program.autoload() || later.iter().any(|start| section.starts_with(start)) {
            continue;
        }
        let link = program.attach().map_err(|error| LoadError::Attach {
            program: program.name().to_string_lossy().into_owned(),
            source: io_error(&error),
        })?;
        links.push(link);
    }
    Ok(links)
}

/// `CapEff` of proc(5) as bits, by the numbers of linux/capability.h.
fn check_privilege() -> Result<(), LoadError> {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let all = NET_ADMIN | PERFMON | BPF;
    if effective & all == all || effective & (SYS_ADMIN | NET_ADMIN) == SYS_ADMIN | NET_ADMIN {
        return Ok(());
    }
    let user = rustix::process::geteuid().as_raw();
    Err(LoadError::NotPermitted(format!(
        "this process is user {user} with capabilities {effective:#x}"
    )))
}

thread_local! {
    /// Collects what libbpf says while this thread loads.
    static LOG: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// libbpf has one callback for the process.
fn listen_to_libbpf() {
    libbpf_rs::set_print(Some((PrintLevel::Info, |level, message| {
        let kept = LOG.with_borrow_mut(|log| match log {
            Some(log) => {
                log.push_str(&message);
                true
            }
            None => false,
        });
        let message = message.trim_end();
        match level {
            _ if kept => tracing::debug!(target: "libbpf", "{message}"),
            PrintLevel::Warn => tracing::warn!(target: "libbpf", "{message}"),
            PrintLevel::Info => tracing::info!(target: "libbpf", "{message}"),
            PrintLevel::Debug => tracing::debug!(target: "libbpf", "{message}"),
        }
    })));
}

/// The operating system's answer behind an error of libbpf.
pub(super) fn io_error(error: &libbpf_rs::Error) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(code) = inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return io::Error::from_raw_os_error(code);
        }
        source = inner.source();
    }
    io::Error::other(error.to_string())
}

/// The verifier's complaint is the last line before its statistics.
fn last_line(log: &str) -> String {
    let complaint = log.lines().rev().map(str::trim).find(|line| {
        !line.is_empty()
            && !line.starts_with("libbpf:")
            && !line.starts_with("processed ")
            && !line.starts_with("--")
    });
    complaint
        .map(|line| format!(" ({line})"))
        .unwrap_or_default()
}
