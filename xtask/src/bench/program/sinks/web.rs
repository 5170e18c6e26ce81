//! A web server that looks at no more of a request than it has to, and a socket that only reads.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Result;

/// Answers every request with 200 and the body that `answer` makes of the request's own, which may be gzip.
pub(super) fn serve(stream: TcpStream, answer: fn(&[u8], bool) -> Result<String>) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut body = Vec::new();
    loop {
        let (mut length, mut gzip, mut head, mut line) = (0, false, false, String::new());
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
            head |= text.starts_with("head ");
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        // What follows the answer to a HEAD would be taken for the next answer.
        let said = match head {
            true => String::new(),
            false => answer(&body, gzip)?,
        };
        // One write: a second small one would wait for the acknowledgement of the first.
        let answered = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{said}",
            said.len()
        );
        writer.write_all(answered.as_bytes())?;
    }
}

/// To a bulk request: that every event was taken, looking at nothing but their number.
pub(super) fn bulk(body: &[u8], gzip: bool) -> Result<String> {
    let events = match gzip {
        true => ends(&inflated(body)?),
        false => ends(body),
    } / 2;
    let items = vec![r#"{"create":{"status":201}}"#; events].join(",");
    Ok(format!(r#"{{"errors":false,"items":[{items}]}}"#))
}

fn ends(body: &[u8]) -> usize {
    body.iter().filter(|byte| **byte == b'\n').count()
}

fn inflated(body: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut out)?;
    Ok(out)
}

/// Reads and says nothing.
pub(super) fn drain(mut stream: TcpStream) -> Result<()> {
    let mut part = vec![0; 1 << 20];
    while stream.read(&mut part)? > 0 {}
    Ok(())
}
