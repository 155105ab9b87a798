//! What is printed: the configuration in force, and the schema.

use super::*;

#[test]
fn what_is_printed_gives_the_same_configuration() {
    let secrets =
        ["hunter2", "hunter3"].iter().fold(EVERYTHING.to_owned(), |text, secret| text.replace(secret, "***"));
    for text in ["", &secrets, "[[namespaces]]\nname = 'default'\nslow = 'latest'"] {
        let file = TempFile::new("print", text);
        let sources = Sources { file: Some(file.0.clone()), ..Sources::default() };
        let loaded = Config::load(&sources).unwrap();
        let printed = loaded.to_toml().unwrap();
        assert_eq!(Config::from_toml(&printed).unwrap(), loaded.config, "{printed}");
    }
}

#[test]
fn what_is_printed_says_where_each_value_came_from() {
    let file = TempFile::new("places\n", "[[namespaces]]\nname = 'a'\nslow = 'latest'\n");
    let sources = Sources {
        file: Some(file.0.clone()),
        env: vec![("TIDEGATE_LOG__FORMAT".into(), "json".into())],
        set: vec!["limits.outbox=1KiB".into()],
        insecure: false,
    };
    let printed = Config::load(&sources).unwrap().to_toml().unwrap();
    let path = file.0.display().to_string().replace('\n', "?");
    for line in [
        "format = \"json\" # TIDEGATE_LOG__FORMAT".to_owned(),
        "outbox = \"1KiB\" # --set limits.outbox".to_owned(),
        "heartbeat = \"25s\" # default".to_owned(),
        "listen = \"127.0.0.1:8000\" # default".to_owned(),
        format!("name = \"a\" # {path}:2"),
        format!("slow = \"latest\" # {path}:3"),
        "name = \"default\" # default".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
}

#[test]
fn the_schema_accepts_what_is_right_and_refuses_the_rest() {
    let schema = jsonschema::draft202012::new(&schema()).unwrap();
    let is_valid = |text: &str| {
        let value: toml::Table = text.parse().unwrap();
        schema.is_valid(&serde_json::to_value(value).unwrap())
    };
    for good in ["", EVERYTHING] {
        assert!(is_valid(good), "{good}");
    }
    let bad = [
        "x = 1",
        "[public]\nlisen = 'x'",
        "[[namespaces]]\nname = 'a'\nx = 1",
        "[limits]\nmessage = '1 KiB'",
        "[limits]\nmessage = -1",
        "[limits]\nconnections = '5'",
        "[sessions]\nheartbeat = 25",
        "[sessions]\nheartbeat = '25'",
        "[log]\nformat = 'xml'",
        "[broker]\nurl = 'redis:'",
        "[[namespaces]]\nslow = 'latest'",
        "[[namespaces]]\nname = 'a:b'",
        "[public]\nlisten = ['x']",
        "[public]\nlisten = 'x'",
        "[public]\ntls_cert_file = 1",
        "[[auth.keys]]\nname = 'a'\nsha256 = 'short'\nchannels = '*'\noperations = ['read']",
        "[[auth.keys]]\nsha256 = '0'",
        "[auth.jwt]\nalgorithms = ['none']",
        "[auth.jwt]\nkeyfile = ''",
    ];
    for bad in bad {
        assert!(!is_valid(bad), "{bad}");
        assert!(Config::from_toml(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_key_has_a_text_and_a_default_in_the_schema() {
    fn look(path: &str, section: &serde_json::Value) {
        let properties = section.get("properties").unwrap_or(&section["items"]["properties"]);
        for (key, property) in properties.as_object().unwrap() {
            let path = format!("{path}.{key}");
            let is_section = property.get("properties").or(property["items"].get("properties")).is_some();
            assert!(property["description"].is_string() || path.split('.').count() == 2, "{path}");
            let needs_default = !is_section && !["name", "sha256"].contains(&key.as_str());
            assert_eq!(property.get("default").is_some(), needs_default, "{path}");
            if is_section {
                look(&path, property);
            }
        }
    }
    look("", &schema());
}
