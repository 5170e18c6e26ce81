//! A web server that does what a script says: answers, or fails in one of the ways that a real one does not do on demand.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What came, with its body uncompressed.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(same)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

/// What the server does with a request that it has read whole.
#[derive(Clone, Debug)]
pub enum Answer {
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Reads everything, then ends the connection without a word.
    Reset,
    /// 204, a byte every few milliseconds.
    Slowly,
    /// 200 with a body that is shorter than it says.
    CutShort,
    /// Never.
    Silence,
    /// Something that is no HTTP.
    Nonsense,
}

impl Answer {
    pub fn status(code: u16) -> Self {
        Answer::Status(code, Vec::new(), Vec::new())
    }

    pub fn saying(code: u16, body: &str) -> Self {
        Answer::Status(code, Vec::new(), body.into())
    }

    pub fn after(code: u16, seconds: u32) -> Self {
        let after = ("retry-after", seconds.to_string());
        Answer::Status(code, vec![after], Vec::new())
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

/// The server; it ends with its handle.
pub struct FakeHttp {
    pub at: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

/// An address where nobody listens, for a server that comes later.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

/// Waits out the moment in which the kernel still holds an address that was used.
pub async fn listen(at: SocketAddr) -> TcpListener {
    for _ in 0..600 {
        match TcpListener::bind(at).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("{at} stays in use");
}

impl FakeHttp {
    pub async fn start(script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        Self::at(free_address().await, script).await
    }

    pub async fn at(
        at: SocketAddr,
        script: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> Self {
        let listener = listen(at).await;
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        FakeHttp { at, script, task }
    }

    /// From now on it does this.
    pub fn then(&self, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.at)
    }
}

impl Drop for FakeHttp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    while let Some(request) = read(&mut stream).await {
        let answer = (script.lock().unwrap())(&request);
        if !give(&mut stream, answer).await {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head of text");
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |n| n.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.body = match request.header("content-encoding") {
        Some("gzip") => {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..])
                .read_to_end(&mut plain)
                .expect("gzip");
            plain
        }
        _ => body,
    };
    Some(request)
}

/// Whether the connection goes on.
async fn give(stream: &mut TcpStream, answer: Answer) -> bool {
    match answer {
        Answer::Status(code, headers, body) => {
            let mut head = format!("HTTP/1.1 {code} Said\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await.is_ok() && stream.write_all(&body).await.is_ok()
        }
        Answer::Reset => false,
        Answer::Slowly => {
            for byte in b"HTTP/1.1 204 Said\r\n\r\n" {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return false;
                }
            }
            true
        }
        Answer::CutShort => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 Said\r\ncontent-length: 99\r\n\r\nshort")
                .await;
            false
        }
        Answer::Silence => {
            std::future::pending::<()>().await;
            false
        }
        Answer::Nonsense => {
            let _ = stream.write_all(b"\x16\x03\x01 what?\r\n\r\n").await;
            false
        }
    }
}
