//! The control socket: where `cresset run` registers workloads.
//!
//! One JSON object a line, over a Unix stream socket of mode 0600:
//!
//! ```text
//! ▶ {"register":{"namespace":"shop","name":"cart","labels":{"app":"cart"},"container":"cart","image":""}}
//! ◀ {"ready":{"workload":7,"cgroup":"/sys/fs/cgroup/…","tier":3,"policies":["shop/no-package-tools"]}}
//! ◀ {"error":"…"}
//! ▶ {"status":{}}
//! ◀ {"status":{…}}
//! ▶ {"pause":{"seconds":600,"reason":"…"}}
//! ◀ {"done":{}}
//! ```
//! **The connection is the workload's life**: when it ends, however it ends, every task in the cgroup is killed and
//! the cgroup removed. When the sensor ends, its workloads end: on the native tier their rules end with it.
//!
//! A sensor that has never had rules lets a workload wait a few seconds for a relay's first ones, so that nothing runs
//! unjudged only because it was quicker than the link. Later, and with a relay that is away, what is in force counts.
//!
//! Only root and the sensor's own user are heard (`SO_PEERCRED`), whatever the socket file's mode has become.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::{Handle, Ready, RegisterError, Status};
use crate::workload::Identity;

/// A request is one line of at most this many bytes.
const MAX_LINE: u64 = 64 << 10;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Take a workload in.
    Register(Identity),
    /// Tell how things are.
    Status {},
    /// Put all policies out of force for so many seconds; 0: back in force.
    Pause {
        /// How long.
        seconds: u64,
        /// Why, for whoever reads the event.
        reason: String,
    },
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The workload can be entered; it lives as long as this connection.
    Ready(ReadyReply),
    /// How things are.
    Status(StatusReply),
    /// It is done.
    Done {},
    /// No, and why.
    Error(String),
}

/// A workload that can be entered.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadyReply {
    /// Its number.
    pub workload: u32,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// The tier that enforces its rules.
    pub tier: u8,
    /// Policies that select it, `namespace/name`.
    pub policies: Vec<String>,
}

/// How things are, as the control socket tells it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StatusReply {
    /// 1 LSM, 2 fmod_ret, 3 contain.
    pub tier: u8,
    /// Why not a better tier.
    pub reason: String,
    /// Operation → what the tier can do: deny, kill, audit, none.
    pub abilities: BTreeMap<String, String>,
    /// Digest of the rule set in force, hex; empty without one.
    pub rules: String,
    /// Workloads by number.
    pub workloads: BTreeMap<u32, WorkloadReply>,
    /// Parts of policies that are not enforced here: `policy path: why`.
    pub not_enforced: Vec<String>,
}

/// A workload, as the control socket tells it.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadReply {
    /// `namespace/name`.
    pub name: String,
    /// `k=v,k=v`.
    pub labels: String,
    /// Policies that select it.
    pub policies: Vec<String>,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers on it.
    #[error("{} is served by a sensor that is running; stop it, or choose another sensor.control", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{} exists and is no socket; remove it, or choose another sensor.control", .0.display())]
    NotASocket(PathBuf),
    /// The file system said no.
    #[error("control socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A bound control socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: Option<(u64, u64)>,
}

impl Control {
    /// Binds the socket; makes its folder; replaces a socket file that nobody answers on.
    /// Must be called inside a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let io_error = |source| ControlError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io_error)?;
        }
        check_free(path)?;
        // Bound under another name and given its mode before anybody can find it.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // Left behind by a process of the same number that was killed in between.
        let _ = std::fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside).map_err(io_error)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
            .map_err(io_error)?;
        std::fs::rename(&beside, path).map_err(io_error)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: identity_of(path),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop` becomes true, then ends every workload and returns. A sensor that has no rules yet lets
    /// workloads wait for a relay's first ones, until `patience` after this call.
    pub async fn serve(
        self,
        engine: Handle,
        root: PathBuf,
        patience: Duration,
        mut stop: watch::Receiver<bool>,
    ) {
        let patience = Instant::now() + patience;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let place = Place { engine: engine.clone(), root: root.clone(), patience };
                        connections.spawn(connection(stream, place, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the control socket failed");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                _ = stopped(&mut stop) => break,
            }
        }
        // Each ends its workload first.
        while connections.join_next().await.is_some() {}
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Whatever stands there now, if it is not ours it stays.
        if self.file.is_some() && identity_of(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Resolves when the sensor stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn check_free(path: &Path) -> Result<(), ControlError> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::Taken(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Where workloads are taken in.
struct Place {
    engine: Handle,
    root: PathBuf,
    patience: Instant,
}

impl Place {
    async fn register(&self, identity: Identity) -> Result<Ready, RegisterError> {
        let left = self.patience.saturating_duration_since(Instant::now());
        if !self.engine.wait_for_rules(left).await && !left.is_zero() {
            tracing::warn!("no relay has sent rules yet: workloads run without");
        }
        self.engine.register(identity, self.root.clone()).await
    }
}

async fn connection(stream: UnixStream, place: Place, mut stop: watch::Receiver<bool>) {
    let mut client = Client::new(stream);
    if !client.trusted() {
        client
            .reply(&Reply::Error("only root may use this socket".to_owned()))
            .await;
        return;
    }
    let mut workload = None;
    loop {
        let request = tokio::select! {
            request = client.request() => request,
            () = stopped(&mut stop) => break,
        };
        let reply = match request {
            Ok(None) => break,
            Err(why) => Reply::Error(why),
            Ok(Some(Request::Status {})) => status(&place.engine).await,
            Ok(Some(Request::Pause { seconds, reason })) => {
                let length = Duration::from_secs(seconds);
                match place.engine.pause(length, reason).await {
                    Ok(()) => Reply::Done {},
                    Err(why) => Reply::Error(why.to_string()),
                }
            }
            Ok(Some(Request::Register(_))) if workload.is_some() => {
                Reply::Error("this connection has a workload; open another".to_owned())
            }
            Ok(Some(Request::Register(identity))) => match place.register(identity).await {
                Ok(ready) => Reply::Ready(ready_reply(workload.insert(ready))),
                Err(why) => Reply::Error(why.to_string()),
            },
        };
        let fatal = matches!(reply, Reply::Error(_)) && workload.is_none();
        if !client.reply(&reply).await || fatal {
            break;
        }
    }
    if let Some(ready) = workload {
        end(ready, &place.engine).await;
    }
}

/// Tasks first, while their rules hold; then the rules; then the cgroup.
async fn end(ready: Ready, engine: &Handle) {
    let Ready { index, cgroup, .. } = ready;
    let killed = tokio::task::spawn_blocking(move || (cgroup.kill(), cgroup)).await;
    engine.unregister(index).await;
    let Ok((killed, cgroup)) = killed else { return };
    // What could not be killed is tried again when the cgroup is dropped, which may take as long.
    let removed = tokio::task::spawn_blocking(move || killed.and_then(|()| cgroup.remove())).await;
    match removed {
        Ok(Ok(())) => tracing::debug!(workload = index, "workload ended"),
        Ok(Err(error)) => tracing::warn!(workload = index, %error, "workload ended badly"),
        Err(_) => {}
    }
}

async fn status(engine: &Handle) -> Reply {
    match engine.status().await {
        Some(status) => Reply::Status(status_reply(&status)),
        None => Reply::Error("the sensor is stopping".to_owned()),
    }
}

fn ready_reply(ready: &Ready) -> ReadyReply {
    ReadyReply {
        workload: ready.index,
        cgroup: ready.cgroup.path().to_owned(),
        tier: ready.tier,
        policies: ready.policies.clone(),
    }
}

fn status_reply(status: &Status) -> StatusReply {
    let workload =
        |(workload, policies): &(std::sync::Arc<crate::workload::Workload>, Vec<String>)| {
            let identity = &workload.identity;
            let name = format!("{}/{}", identity.namespace, identity.name);
            let reply = WorkloadReply {
                name,
                labels: workload.labels.clone(),
                policies: policies.clone(),
            };
            (workload.index, reply)
        };
    let digest = proto::Digest::try_from(&status.digest[..]).map(|digest| digest.to_string());
    let problem = |p: &proto::link::RuleProblem| format!("{} {}: {}", p.policy, p.path, p.message);
    StatusReply {
        tier: status.tier,
        reason: status.reason.clone(),
        abilities: status
            .abilities
            .iter()
            .map(|a| (a.operation.clone(), a.how.clone()))
            .collect(),
        rules: digest.unwrap_or_default(),
        workloads: status.workloads.iter().map(workload).collect(),
        not_enforced: status.problems.iter().map(problem).collect(),
    }
}

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn trusted(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.stream
            .get_ref()
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
    }

    /// The next request; none at the end. Errors: a line that is no request.
    async fn request(&mut self) -> Result<Option<Request>, String> {
        let mut line = String::new();
        match (&mut self.stream).take(MAX_LINE).read_line(&mut line).await {
            Err(_) | Ok(0) => Ok(None),
            Ok(_) if !line.ends_with('\n') && line.len() as u64 >= MAX_LINE => {
                Err(format!("a request longer than {MAX_LINE} bytes"))
            }
            Ok(_) => serde_json::from_str(&line)
                .map(Some)
                .map_err(|why| format!("not a request: {why}")),
        }
    }

    /// False: the client is gone.
    async fn reply(&mut self, reply: &Reply) -> bool {
        let Ok(mut line) = serde_json::to_vec(reply) else {
            return false;
        };
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await.is_ok()
    }
}
