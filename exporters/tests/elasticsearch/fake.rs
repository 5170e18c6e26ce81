//! A server that speaks enough of `_bulk` to keep documents by id, and misbehaves as it is told: with every request one answer
//! is taken from the script; without a script it does as it should.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What happens to a bulk request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// It is taken, and the connection is reset before an answer.
    TakeAndReset,
    /// It is taken, and the answer comes byte by byte, with a pause after each.
    TakeSlowly(Duration),
    /// It is taken, and half of the answer comes; the sending side is closed.
    TakeAndClose,
    /// It is taken, and the answer is said to be longer than it is.
    TakeAndOverstate,
    /// It is taken, and the answer is said to be shorter than it is.
    TakeAndUnderstate,
    /// It is taken, and the answer leaves out the last item.
    TakeAndForget,
    /// It is taken, and nothing comes back.
    TakeAndHang,
    /// Status, further headers and body.
    Say(u16, &'static str, String),
    /// Every item has this status and error, and nothing is kept.
    Items(u16, &'static str),
}

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// `POST /_bulk?… HTTP/1.1`
    pub(crate) line: String,
    /// In small letters, with values as they are.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A clone looks at the same server.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Act>,
    /// How often each id was taken; 1 unless something is wrong.
    kept: BTreeMap<String, u32>,
    bulks: Vec<Request>,
    heads: usize,
    /// What it says that its cluster is.
    cluster: Option<&'static str>,
}

/// A read that ended early, or what else can go wrong with a connection.
type Ended = std::io::Error;

impl Fake {
    /// Listens, without encryption.
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Fake {
        Self::serve(script, None).await
    }

    pub(crate) async fn serve(
        script: impl IntoIterator<Item = Act>,
        tls: Option<TlsAcceptor>,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            script: script.into_iter().collect(),
            ..State::default()
        };
        let fake = Fake {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::new(Mutex::new(state)),
        };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fake, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    let _ = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => fake.converse(stream, |_| {}).await,
                            Err(error) => Err(error),
                        },
                        None => fake.converse(stream, reset).await,
                    };
                });
            }
        });
        fake
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often each id was taken.
    pub(crate) fn kept(&self) -> BTreeMap<String, u32> {
        self.state.lock().unwrap().kept.clone()
    }

    pub(crate) fn bulks(&self) -> Vec<Request> {
        self.state.lock().unwrap().bulks.clone()
    }

    pub(crate) fn heads(&self) -> usize {
        self.state.lock().unwrap().heads
    }

    async fn converse<S>(&self, mut stream: S, reset: impl Fn(&S)) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let request = read(&mut stream).await?;
            if !request.line.contains("_bulk") {
                let body = self.head(&request.line);
                stream
                    .write_all(answer(200, "", &body, body.len()).as_bytes())
                    .await?;
                continue;
            }
            let act = {
                let mut state = self.state.lock().unwrap();
                state.bulks.push(request.clone());
                state.script.pop_front()
            };
            match act {
                Some(Act::Say(status, headers, body)) => {
                    stream
                        .write_all(answer(status, headers, &body, body.len()).as_bytes())
                        .await?;
                }
                Some(Act::Items(status, error)) => {
                    let count = lines(&request.body).len();
                    let item = format!(r#"{{"create":{{"status":{status},"error":{error}}}}}"#);
                    let body = format!(
                        r#"{{"errors":true,"items":[{}]}}"#,
                        vec![item; count].join(",")
                    );
                    stream
                        .write_all(answer(200, "", &body, body.len()).as_bytes())
                        .await?;
                }
                act => {
                    let mut items = self.take(&request);
                    if matches!(act, Some(Act::TakeAndForget)) {
                        items.pop();
                    }
                    let body = format!(r#"{{"errors":false,"items":[{}]}}"#, items.join(","));
                    let whole = answer(200, "", &body, body.len());
                    match act {
                        Some(Act::TakeAndReset) => {
                            reset(&stream);
                            return Ok(());
                        }
                        Some(Act::TakeSlowly(pause)) => {
                            for byte in whole.as_bytes() {
                                stream.write_all(&[*byte]).await?;
                                stream.flush().await?;
                                tokio::time::sleep(pause).await;
                            }
                        }
                        Some(Act::TakeAndClose) => {
                            stream
                                .write_all(&whole.as_bytes()[..whole.len() / 2])
                                .await?;
                            stream.shutdown().await?;
                            return Ok(());
                        }
                        Some(Act::TakeAndOverstate) => {
                            stream
                                .write_all(answer(200, "", &body, body.len() + 10).as_bytes())
                                .await?;
                            stream.shutdown().await?;
                            return Ok(());
                        }
                        Some(Act::TakeAndUnderstate) => {
                            stream
                                .write_all(answer(200, "", &body, body.len() - 10).as_bytes())
                                .await?;
                            stream.shutdown().await?;
                            return Ok(());
                        }
                        Some(Act::TakeAndHang) => {
                            tokio::time::sleep(Duration::from_secs(600)).await
                        }
                        _ => stream.write_all(whole.as_bytes()).await?,
                    }
                }
            }
        }
    }

    /// Says from now on that it is this cluster.
    pub(crate) fn become_cluster(&self, id: &'static str) {
        self.state.lock().unwrap().cluster = Some(id);
    }

    fn head(&self, line: &str) -> String {
        let mut state = self.state.lock().unwrap();
        state.heads += 1;
        match state.cluster {
            _ if line.starts_with("HEAD") => String::new(),
            Some(id) if line.starts_with("GET / ") => {
                format!(r#"{{"version":{{"number":"8.15.0"}},"cluster_uuid":"{id}"}}"#)
            }
            _ => "{}".to_owned(),
        }
    }

    /// Keeps what is new; one item an event.
    fn take(&self, request: &Request) -> Vec<String> {
        let kept = &mut self.state.lock().unwrap().kept;
        let ids = lines(&request.body)
            .into_iter()
            .map(|(place, _)| place["create"]["_id"].as_str().unwrap().to_owned());
        ids.map(|id| match kept.contains_key(&id) {
            true => r#"{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}}"#.to_owned(),
            false => {
                *kept.entry(id).or_default() += 1;
                r#"{"create":{"status":201}}"#.to_owned()
            }
        })
        .collect()
    }
}

/// The pairs of lines of a body.
pub(crate) fn lines(body: &[u8]) -> Vec<(Value, Value)> {
    let lines: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    lines
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn reset(stream: &TcpStream) {
    // With nothing lingering, closing is a reset.
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

fn answer(status: u16, headers: &str, body: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} As Told\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Ended> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Request {
        line,
        headers,
        body,
    })
}
