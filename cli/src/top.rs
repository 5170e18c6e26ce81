//! `cresset top`: relay, journal, sensors and sinks, live on a terminal.
//!
//! The page is drawn whole into memory and then put over the old one, line by line, so nothing flickers; what does not fit
//! is cut off, never wrapped. The terminal is put back as it was however the program ends.

mod page;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, queue, terminal};
use proto::query::{StatusReply, StatusRequest};
use tokio::sync::mpsc;

use self::page::{Seen, page};
use crate::connect::{Relay, RelayArgs, Trouble};

/// How long the keyboard is waited for before it is looked whether anybody still wants to know.
const KEYS: Duration = Duration::from_millis(100);

/// Which relay, how often
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    relay: RelayArgs,

    /// Ask the relay whose data folder this is, through DIR/admin.sock
    #[arg(long, value_name = "DIR", conflicts_with = "relay")]
    data: Option<PathBuf>,

    /// Between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let span: yaml::Span = text.parse().map_err(|why| format!("{why}"))?;
    match span.0 {
        short if short < Duration::from_millis(100) => Err("at least 100ms".to_owned()),
        long => Ok(long),
    }
}

/// Runs `cresset top` until q, Escape or Ctrl-C.
///
/// # Errors
/// No terminal, or a relay that cannot be reached at the start; one that goes away later is waited for.
pub(crate) async fn top(args: TopArgs) -> Result<ExitCode, Trouble> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Trouble::Usage(
            "`cresset top` needs a terminal; `cresset status` writes the same once".to_owned(),
        ));
    }
    let mut relay = Some(connect(&args).await?);
    let screen = Screen::take().map_err(local)?;
    let mut keys = keys();
    let mut seen: Option<Seen> = None;
    let mut tick = tokio::time::interval(args.interval);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            key = keys.recv() => match key {
                Some(Key::Resized) => {}
                Some(Key::Quit) | None => return Ok(ExitCode::SUCCESS),
            },
        }
        let asked = tokio::select! {
            asked = ask(&args, &mut relay) => asked,
            Some(Key::Quit) = keys.recv() => return Ok(ExitCode::SUCCESS),
        };
        let lines = match asked {
            Ok(reply) => {
                let now = Seen {
                    at: Instant::now(),
                    reply,
                };
                let lines = page(&now, seen.as_ref());
                seen = Some(now);
                lines
            }
            Err(trouble) => vec![format!("! {trouble}"), "trying again; q quits".to_owned()],
        };
        screen.draw(&lines).map_err(local)?;
    }
}

fn local(error: io::Error) -> Trouble {
    Trouble::Local(format!("the terminal: {error}"))
}

async fn connect(args: &TopArgs) -> Result<Relay, Trouble> {
    match &args.data {
        Some(data) => Relay::connect_admin(Some(data)).await,
        None => args.relay.connect().await,
    }
}

/// Asks for a status; after a failure the next call connects again.
async fn ask(args: &TopArgs, relay: &mut Option<Relay>) -> Result<StatusReply, Trouble> {
    let connected = match relay.take() {
        Some(relay) => relay,
        None => connect(args).await?,
    };
    let reply = connected.query().status(StatusRequest {}).await;
    let reply = reply.map_err(|status| connected.trouble(status))?;
    *relay = Some(connected);
    Ok(reply.into_inner())
}

enum Key {
    Quit,
    Resized,
}

/// What is typed, from a thread of its own: reading a keyboard blocks.
fn keys() -> mpsc::Receiver<Key> {
    let (tell, told) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            let key = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => event::read().ok().and_then(|event| key(&event)),
                Err(_) => Some(Key::Quit),
            };
            if let Some(key) = key
                && tell.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    told
}

fn key(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resized),
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let interrupt =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            let quit = matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
            (interrupt || quit).then_some(Key::Quit)
        }
        _ => None,
    }
}

/// The terminal while it is ours.
struct Screen;

impl Screen {
    fn take() -> io::Result<Screen> {
        terminal::enable_raw_mode()?;
        let screen = Screen;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Puts these lines over the old ones.
    fn draw(&self, lines: &[String]) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = io::stdout().lock();
        for row in 0..height {
            let line = lines.get(usize::from(row)).map_or("", String::as_str);
            let cut: String = line.chars().take(usize::from(width)).collect();
            queue!(out, cursor::MoveTo(0, row))?;
            out.write_all(cut.as_bytes())?;
            queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}
