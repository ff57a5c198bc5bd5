//! Files that include others.

use std::fs;

use super::*;

#[test]
fn include_follows_patterns_from_the_file_it_stands_in() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    let resource = |name: &str, n: u32| {
        format!(
            "resource {name} {{ device minor {n}; disk none; on oslo {{ node-id 0; address \
             10.0.0.1:{n}; }} }}"
        )
    };
    let names = |main: &str| {
        let (configuration, _) = Configuration::load(&at(main), "oslo")?;
        let names: Vec<_> = configuration.resources.into_iter().map(|r| r.name).collect();
        Ok::<_, crate::failure::Failure>(names.join(" "))
    };
    fs::create_dir(at("sub")).unwrap();
    write(
        "main",
        "include \"sub/*.res\"; include sub/more; include \"none/*\"; skip include gone;",
    );
    write("sub/b.res", &resource("b", 1));
    write("sub/a.res", &resource("a", 2));
    write("sub/.hidden.res", "nonsense");
    write("sub/c.rest", "nonsense");
    write("sub/more", &format!("include \"?.last\"; {}", resource("m", 3)));
    write("sub/x.last", &resource("x", 4));
    assert_eq!(names("main").unwrap(), "a b x m");
    // The directory a file stands in is no pattern; what it includes may name more of them.
    fs::create_dir_all(at("[s]*/deep")).unwrap();
    write("[s]*/main", "include \"*/[b-d].res\";");
    for name in ["a", "b", "c"] {
        write(&format!("[s]*/deep/{name}.res"), &resource(name, u32::from(name.as_bytes()[0])));
    }
    assert_eq!(names("[s]*/main").unwrap(), "b c");

    write("loop", "\ninclude loop;");
    let error = names("loop").unwrap_err().text;
    let path = at("loop").display().to_string();
    let bounds = "at most 16 files deep and 256 in all (does a file include itself?)";
    assert_eq!(error, format!("{path}:2: cannot include `{path}`: {bounds}"));
    fs::create_dir(at("many")).unwrap();
    for n in 0..256 {
        write(&format!("many/{n:03}"), "");
    }
    write("all", "include \"many/*\";");
    let error = names("all").unwrap_err().text;
    assert!(error.ends_with(&format!("many/255`: {bounds}")), "{error}");

    write("large", &" ".repeat((1 << 20) + 1));
    let error = names("large").unwrap_err().text;
    let path = at("large").display().to_string();
    let hint = "name another file with --config";
    assert_eq!(error, format!("{path}: cannot be read: larger than 1048576 bytes; {hint}"));
    write("large", &" ".repeat(1 << 20));
    assert_eq!(names("large").unwrap(), "");
    let error = names("no-such").unwrap_err().text;
    assert!(
        error.ends_with(&format!("cannot be read: No such file or directory (os error 2); {hint}"))
    );
}
