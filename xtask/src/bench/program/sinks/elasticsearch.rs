//! The Elasticsearch sink, whole: encode, bulk body, HTTP, answer, outcomes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;

use super::{Fake, Load, drive};
use crate::args::SinkCase;
use crate::table::Row;

const CASE: &str = "elasticsearch (fake)";

pub(super) async fn run(seconds: u64) -> Result<Vec<Row>> {
    let fake = Fake::start(SinkCase::Elasticsearch)?;
    let mut rows = Vec::new();
    for (what, more) in [
        ("fields: all", ""),
        ("fields: kubearmor", ", fields: kubearmor"),
        ("fields: all, gzip", ", compression: gzip"),
    ] {
        let address = &fake.address;
        let settings = format!(
            "{{type: elasticsearch, proxy: none, endpoints: ['http://{address}'], index: {{setup: manual}}{more}}}"
        );
        let mut row = Row::new(CASE, what);
        let load = Load {
            settings: &settings,
            batch: 5000,
            flying: 4,
            seconds,
        };
        drive(&load, &mut row).await?;
        rows.push(row);
    }
    Ok(rows)
}

/// Answers that every event was taken, looking at nothing but their number.
pub(super) fn be_fake() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn serve(stream: TcpStream) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut body = Vec::new();
    loop {
        let (mut length, mut gzip, mut line) = (0, false, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let text = line.trim().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            gzip |= text == "content-encoding: gzip";
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let events = match gzip {
            true => ends(&inflated(&body)?),
            false => ends(&body),
        } / 2;
        let items = vec![r#"{"create":{"status":201}}"#; events].join(",");
        let answer = format!(r#"{{"errors":false,"items":[{items}]}}"#);
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
    }
}

fn ends(body: &[u8]) -> usize {
    body.iter().filter(|byte| **byte == b'\n').count()
}

fn inflated(body: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut out)?;
    Ok(out)
}
