//! Debian's cloud kernels, fetched by package name and unpacked beside the build; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, check, output};

/// The meta-packages; each depends on the newest versioned package of its series.
fn meta_package(series: &str) -> Result<&'static str> {
    match series {
        "6.1" => Ok("linux-image-cloud-amd64"),
        "6.12" => Ok("linux-image-6.12-cloud-amd64"),
        other => bail!("no package is known for kernel {other}; known are 6.1 and 6.12"),
    }
}

/// The `vmlinuz` of a series, from the cache or the package archive.
pub(crate) fn fetch(series: &str) -> Result<PathBuf> {
    let meta = meta_package(series)?;
    let cache = workspace::target().join("vm/kernels");
    std::fs::create_dir_all(&cache)?;
    let package = match resolve(meta) {
        Ok(package) => package,
        Err(error) => match find(&cache.join(series)) {
            Ok(image) => return Ok(image),
            Err(_) => return Err(error),
        },
    };
    let dir = cache.join(series).join(&package);
    if let Ok(image) = find(&dir) {
        return Ok(image);
    }
    println!("fetching {package}");
    let download = cache.join("download");
    if download.exists() {
        std::fs::remove_dir_all(&download)?;
    }
    std::fs::create_dir_all(&download)?;
    let mut get = Command::new("apt-get");
    get.current_dir(&download)
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", &package]);
    check(&mut get).with_context(|| format!("cannot fetch {package}; try `apt-get update`"))?;
    let file = std::fs::read_dir(&download)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt-get download left no package")?;
    // Unpacked beside its place and moved there whole, so that a cut run leaves nothing that looks complete.
    let unpacked = download.join("unpacked");
    std::fs::create_dir(&unpacked)?;
    check(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&unpacked))?;
    std::fs::create_dir_all(cache.join(series))?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::rename(&unpacked, &dir)?;
    std::fs::remove_dir_all(&download)?;
    find(&dir)
}

/// The versioned package that a meta-package stands for today.
fn resolve(meta: &str) -> Result<String> {
    let text = output(Command::new("apt-cache").args(["depends", meta]))?;
    text.lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("Depends: ")
                .filter(|p| p.starts_with("linux-image-"))
        })
        .map(str::to_owned)
        .with_context(|| format!("package {meta} is unknown; try `apt-get update`"))
}

/// The kernel image at or below `dir`.
fn find(dir: &Path) -> Result<PathBuf> {
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in
            std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?
        {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("vmlinuz-") {
                return Ok(path);
            }
            if path.is_dir() && !name.starts_with("lib") {
                waiting.push(path);
            }
        }
    }
    bail!("no kernel image below {}", dir.display())
}
