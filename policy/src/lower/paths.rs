//! Programs and files: by path, by folder, by pattern, programs by name.

use super::{Lower, Written, sources};
use crate::model::{self, Attributes};
use crate::path::canonical;
use crate::rule::{Object, Section};

impl<'p> Lower<'p> {
    pub(super) fn process(&mut self, section: &'p model::Process, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_paths.iter().enumerate() {
            let place = format!("process.matchPaths[{index}]");
            self.add(place, program(item), item.attributes().within(outer));
        }
        for (index, item) in section.match_directories.iter().enumerate() {
            let place = format!("process.matchDirectories[{index}]");
            self.add(place, programs_in(item), item.attributes().within(outer));
        }
        for (index, item) in section.match_patterns.iter().enumerate() {
            let place = format!("process.matchPatterns[{index}]");
            self.add(place, programs_like(item), item.attributes().within(outer));
        }
    }

    pub(super) fn file(&mut self, section: &'p model::File, outer: Attributes<'p>) {
        let outer = section.attributes().within(outer);
        for (index, item) in section.match_paths.iter().enumerate() {
            let place = format!("file.matchPaths[{index}]");
            self.add(place, file(item), item.attributes().within(outer));
        }
        for (index, item) in section.match_directories.iter().enumerate() {
            let place = format!("file.matchDirectories[{index}]");
            self.add(place, files_in(item), item.attributes().within(outer));
        }
        for (index, item) in section.match_patterns.iter().enumerate() {
            let place = format!("file.matchPatterns[{index}]");
            self.add(place, files_like(item), item.attributes().within(outer));
        }
    }
}

// === programs ===

fn program(item: &model::ProcessPath) -> Written<'_> {
    let object = match (&item.path, &item.execname) {
        (Some(path), _) => Object::Path(canonical(path)),
        (None, name) => Object::Name(name.clone().unwrap_or_default()),
    };
    Written {
        sources: sources(&item.from_source),
        owner_only: item.owner_only,
        pts: item.pts,
        args: &item.allowed_args,
        ..Written::new(Section::Process, object)
    }
}

fn programs_in(item: &model::ProcessDirectory) -> Written<'_> {
    Written {
        sources: sources(&item.from_source),
        owner_only: item.owner_only,
        pts: item.pts,
        ..Written::new(Section::Process, directory(&item.dir, item.recursive))
    }
}

fn programs_like(item: &model::ProcessPattern) -> Written<'_> {
    Written {
        owner_only: item.owner_only,
        ..Written::new(Section::Process, Object::Pattern(item.pattern.clone()))
    }
}

// === files ===

fn file(item: &model::FilePath) -> Written<'_> {
    Written {
        sources: sources(&item.from_source),
        owner_only: item.owner_only,
        read_only: item.read_only,
        pts: item.pts,
        ..Written::new(Section::File, Object::Path(canonical(&item.path)))
    }
}

fn files_in(item: &model::FileDirectory) -> Written<'_> {
    Written {
        sources: sources(&item.from_source),
        owner_only: item.owner_only,
        read_only: item.read_only,
        pts: item.pts,
        ..Written::new(Section::File, directory(&item.dir, item.recursive))
    }
}

fn files_like(item: &model::FilePattern) -> Written<'_> {
    Written {
        owner_only: item.owner_only,
        read_only: item.read_only,
        ..Written::new(Section::File, Object::Pattern(item.pattern.clone()))
    }
}

fn directory(path: &str, recursive: bool) -> Object {
    Object::Directory {
        path: canonical(path),
        recursive,
    }
}
