use std::path::PathBuf;

use super::*;

fn entry(role: Role) -> AccessEntry {
    AccessEntry {
        token_file: None,
        certificate: None,
        anonymous: false,
        role,
        namespaces: Vec::new(),
    }
}

fn file(folder: &tempfile::TempDir, text: &str) -> Option<PathBuf> {
    let path = folder.path().join("siem.token");
    std::fs::write(&path, text).unwrap();
    Some(path)
}

fn bearing<'a>(header: &'a str) -> Shown<'a> {
    Shown {
        authorization: Some(header),
        ..Shown::default()
    }
}

#[test]
fn a_plaintext_door_without_entries_takes_guests_and_an_entry_ends_that() {
    let open = Access::default();
    let role = |door| open.admit(door, Shown::default()).unwrap().role;
    assert_eq!(
        [role(Door::Feed), role(Door::Link)],
        [Role::Reader, Role::Sensor]
    );

    let folder = tempfile::tempdir().unwrap();
    let entry = AccessEntry {
        token_file: file(&folder, "# for the SIEM\n0123456789abcdef\n"),
        namespaces: vec!["shop".into()],
        ..entry(Role::Reader)
    };
    let access = Access::load(&[entry]).unwrap();
    assert_eq!(
        access.admit(Door::Feed, Shown::default()),
        Err(Denied::Nobody)
    );
    assert!(access.admit(Door::Link, Shown::default()).is_ok());
    let caller = access
        .admit(Door::Feed, bearing("bearer 0123456789abcdef"))
        .unwrap();
    assert_eq!(caller.name, "token of siem.token");
    assert!(caller.namespaces.admits("shop") && !caller.namespaces.admits("bank"));
    assert!(!caller.namespaces.admits(""));
    for (header, denied) in [
        ("Bearer 0123456789abcdeX", "token"),
        ("Basic 0123456789abcdef", "form"),
        ("Bearer ", "form"),
    ] {
        let refused = access.admit(Door::Feed, bearing(header)).unwrap_err();
        assert_eq!(refused.word(), denied, "{header}");
    }
    let refused = access.admit(Door::Link, bearing("Bearer 0123456789abcdef"));
    assert_eq!(refused.unwrap_err().word(), "role");
}

#[test]
fn tokens_are_long_and_mean_one_entry() {
    let folder = tempfile::tempdir().unwrap();
    for (text, end) in [
        (
            "short\n",
            "siem.token:1: a token of less than 16 characters",
        ),
        (
            "0123456789abcdef\n\n0123456789abcdef\n",
            "siem.token:3: this token stands",
        ),
        ("# nothing\n", "siem.token holds no token"),
    ] {
        let entry = AccessEntry {
            token_file: file(&folder, text),
            ..entry(Role::Reader)
        };
        let error = Access::load(&[entry]).unwrap_err().to_string();
        assert!(error.contains(end), "{error}");
    }
}

#[test]
fn a_sensor_speaks_for_itself_and_a_relay_for_others() {
    let named = Caller {
        id: Some("a".into()),
        ..Caller::guest(Role::Sensor)
    };
    assert!(named.may_speak_for("a") && !named.may_speak_for("b"));
    assert!(Caller::guest(Role::Relay).may_speak_for("b"));
    assert!(!Caller::guest(Role::Reader).may_speak_for("b"));
}

#[test]
fn anonymous_readers_see_what_their_entry_says() {
    let access = Access::load(&[AccessEntry {
        anonymous: true,
        namespaces: vec!["public".into()],
        ..entry(Role::Reader)
    }])
    .unwrap();
    let shown = Shown {
        asked: true,
        ..Shown::default()
    };
    let caller = access.admit(Door::Feed, shown).unwrap();
    assert!(caller.namespaces.admits("public") && !caller.namespaces.admits("shop"));
    assert_eq!(access.admit(Door::Link, shown), Err(Denied::Nobody));
}
