//! What is wrong in a file is told with its line, key and cure.

use super::*;

#[test]
fn a_fault_names_line_key_value_and_cure() {
    let table = [
        (
            "[public]\n\nlisen = 1",
            "configuration:3: unknown key `public.lisen`; did you mean `public.listen`?",
        ),
        ("\n[pubic]\n", "configuration:2: unknown key `pubic`"),
        ("public.lisen = 1", "configuration:1: unknown key `public.lisen`; did you mean `public.listen`?"),
        (
            "'public.listen' = 1",
            "configuration:1: unknown key `public.listen`; did you mean `public.listen`?",
        ),
        ("[[namespaces]]\nname = 'a'\nhistory = 1", "configuration:3: unknown key `namespaces.history`"),
        ("public = 1", "configuration:1: public is a section: write [public]"),
        ("[namespaces]\nname = 'a'", "configuration:1: namespaces is a section: write [[namespaces]]"),
        ("namespaces = [1]", "configuration:1: namespaces is a section: write [[namespaces]]"),
        ("[limits]\nmessage = true", "configuration:2: limits.message: true is not a size"),
        ("[limits]\nmessage = 'much'", "configuration:2: limits.message: \"much\" is not a size"),
        (
            "[limits]\nconnections = '5'",
            "configuration:2: limits.connections: \"5\" is not a whole number from 0 to",
        ),
        ("[sessions]\nheartbeat = 25", "configuration:2: sessions.heartbeat: 25 is not a time"),
        ("[public]\nlisten = 8000", "configuration:2: public.listen: 8000 is not text"),
        (
            "[public]\nlisten = [\n'127.0.0.1:1',\n'x']",
            "configuration:2: public.listen: \"x\" is not an address",
        ),
        ("[public]\nlisten = []", "configuration:2: public.listen is empty: name at least one address"),
        (
            "[public]\nallowed_origins = ['https://x/']",
            "configuration:2: public.allowed_origins has \"https://x/\", which is not an origin",
        ),
        (
            "[log]\nformat = 'xml'",
            "configuration:2: log.format: unknown variant `xml`, expected one of `auto`, `human`, `json`",
        ),
        (
            "[log]\nlevel = 'loud'",
            "configuration:2: log.level = \"loud\" is not a level: write off, error, warn, info, debug, trace",
        ),
        ("[log]\nlevel = ''", "configuration:2: log.level = \"\" is not a level"),
        (
            "[broker]\nurl = 'secret'",
            "configuration:2: broker.url: no broker has this URL: write \"memory:\"",
        ),
        ("[[namespaces]]\nslow = 'latest'", "configuration:1: namespaces.name is missing"),
        ("[[namespaces]]\nname = 'a:b'", "configuration:2: namespaces.name = \"a:b\" is not a name"),
        (
            "[[namespaces]]\nname = 'a'\n[[namespaces]]\nname = 'a'",
            "configuration:4: namespace \"a\" is listed twice",
        ),
        (
            "[[namespaces]]\nname = 'a'\nslow = 'never'",
            "configuration:3: namespaces.slow: unknown variant `never`, expected `disconnect` or `latest`",
        ),
        (
            "[[namespaces]]\nname = 'a'\nclient_publish = 'yes'",
            "configuration:3: namespaces.client_publish: invalid type",
        ),
        (
            "[[namespaces]]\nname = 'legacy'\nsource = 'redis'",
            "configuration:3: namespace \"legacy\" has source = \"redis\", which broker.url = \"memory:\" cannot serve",
        ),
        (
            "[[auth.keys]]\nname = 'a'\nsha256 = 'tg_secret'",
            "configuration:3: auth.keys.sha256: this is not a SHA-256: write its 64 hex digits",
        ),
        (
            "[[auth.keys]]\nname = 'a'\noperations = ['write']",
            "configuration:3: auth.keys.operations: unknown variant `write`, expected one of `publish`, `read`, `manage`",
        ),
        (
            "[auth]\nkeys_files = 'x'",
            "configuration:2: unknown key `auth.keys_files`; did you mean `auth.keys_file`?",
        ),
        ("[auth.keys]\nname = 'a'", "configuration:1: auth.keys is a section: write [[auth.keys]]"),
        ("[[auth.keys]]\nsha = 'a'", "configuration:2: unknown key `auth.keys.sha`"),
        ("[auth.jwt]\nalgorithms = ['none']", "configuration:2: auth.jwt.algorithms: unknown variant `none`"),
        ("[public", "configuration:1: "),
        ("[public]\nlisten = 'a'\nlisten = 'b'", "configuration:3: duplicate key"),
    ];
    for (text, expected) in table {
        let sentence = fault(text);
        assert!(sentence.starts_with(expected), "{text}\n  is: {sentence}\n not: {expected}");
        assert!(!sentence.contains("secret") && !sentence.contains('\n'), "{sentence}");
    }
}
