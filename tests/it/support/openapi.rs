//! Holds every answer that a test sees against `openapi.yaml`: that the operation knows the status
//! and the media type, and that a JSON body is what its schema says.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::Value;

use super::raw::Answer;

/// The contract, read once.
pub struct Contract {
    pub document: Value,
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml");
    let text = std::fs::read_to_string(path).expect("openapi.yaml is there");
    let document = serde_saphyr::from_str(&text).expect("openapi.yaml is YAML");
    Contract { document, compiled: Mutex::default() }
});

/// The contract.
pub fn contract() -> &'static Contract {
    &CONTRACT
}

/// Checks an answer. What no operation is there for must be the 404 of an unknown path, or a 405.
pub fn saw(method: &str, target: &str, answer: &Answer) {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let Some((template, item)) = CONTRACT.path(path) else {
        assert!(
            matches!(answer.status(), 400 | 403 | 404 | 431 | 503),
            "{method} {path} is not in openapi.yaml, yet: {answer:?}"
        );
        CONTRACT.check_problem(answer);
        return;
    };
    // A head that could not be read as one is answered bare, before any operation is known.
    if answer.status() == 400 && answer.body.is_empty() {
        return;
    }
    let Some(operation) = item.get(method.to_ascii_lowercase()) else {
        // HEAD stands wherever GET does, and OPTIONS everywhere; the rest is 405.
        assert!(
            matches!(
                (method, answer.status()),
                ("HEAD", 200) | ("OPTIONS", 204) | (_, 400 | 403 | 405 | 431)
            ),
            "{method} {template} is not in openapi.yaml, yet: {answer:?}"
        );
        if method != "HEAD" {
            CONTRACT.check_problem(answer);
        }
        return;
    };
    CONTRACT.check(&format!("{method} {template}"), operation, answer);
}

/// Checks an object that came over a stream or in a document; NDJSON has one more kind than WebSocket.
pub fn saw_object(text: &str) {
    let schema = serde_json::json!({"anyOf": [
        {"$ref": "#/components/schemas/ServerObject"},
        {"$ref": "#/components/schemas/StreamObject"},
    ]});
    // A `ref` may be a number beyond what this library holds; nothing else may be unreadable.
    let object: Value = match serde_json::from_str(text) {
        Err(error) if error.to_string().contains("number out of range") => return,
        other => other.expect("an object is JSON"),
    };
    assert!(CONTRACT.validator(&schema).is_valid(&object), "no ServerObject of openapi.yaml: {text}");
}

impl Contract {
    /// The path item that this path belongs to.
    fn path(&self, path: &str) -> Option<(&str, &Value)> {
        let paths = self.document["paths"].as_object().expect("openapi.yaml has paths");
        let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template, path)).collect();
        // The plain one before the one with a parameter.
        found.sort_by_key(|(template, _)| template.contains('{'));
        found.first().map(|(template, item)| (template.as_str(), *item))
    }

    /// Every operation: method, path, and what stands there.
    pub fn operations(&self) -> Vec<(String, String, &Value)> {
        let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
        let paths = self.document["paths"].as_object().expect("openapi.yaml has paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                methods.iter().filter_map(move |method| {
                    item.get(method).map(|found| (method.to_uppercase(), path.clone(), found))
                })
            })
            .collect()
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("references stay within the document");
                self.follow(
                    self.document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")),
                )
            }
            None => value,
        }
    }

    fn check(&self, name: &str, operation: &Value, answer: &Answer) {
        let status = answer.status().to_string();
        let responses = &operation["responses"];
        let wide = format!("{}XX", &status[..1]);
        let response = [status.as_str(), wide.as_str(), "default"]
            .iter()
            .find_map(|key| responses.get(*key))
            .unwrap_or_else(|| panic!("{name}: openapi.yaml knows no {status}, but: {answer:?}"));
        let response = self.follow(response);
        self.check_headers(name, response, answer);
        let media = media_type(answer);
        let Some(content) =
            response.get("content").and_then(Value::as_object).filter(|content| !content.is_empty())
        else {
            assert!(answer.body.is_empty(), "{name}: {status} has no body in openapi.yaml, but: {answer:?}");
            return;
        };
        let Some((_, content)) = content.iter().find(|(known, _)| base(known) == media) else {
            panic!("{name}: openapi.yaml knows no {media:?} with {status}: {answer:?}");
        };
        if is_json(&media)
            && let Some(schema) = content.get("schema")
        {
            self.validate(name, schema, answer);
        }
    }

    /// The headers that the contract knows: there where required, and in their form.
    fn check_headers(&self, name: &str, response: &Value, answer: &Answer) {
        for (header, described) in response["headers"].as_object().into_iter().flatten() {
            let described = self.follow(described);
            let status = answer.status();
            match answer.header(header) {
                None => {
                    assert_ne!(described["required"], true, "{name}: {status} without {header}: {answer:?}")
                }
                Some(value) => {
                    let schema = &described["schema"];
                    let number = self.follow(schema)["type"] == "integer";
                    let value = match value.parse::<u64>() {
                        Ok(parsed) if number => Value::from(parsed),
                        _ => Value::from(value),
                    };
                    assert!(
                        self.validator(schema).is_valid(&value),
                        "{name}: {status} with {header}: {value}"
                    );
                }
            }
        }
    }

    /// A problem outside any operation is still a problem.
    fn check_problem(&self, answer: &Answer) {
        if answer.status() >= 400 && media_type(answer) == "application/problem+json" {
            let schema = serde_json::json!({"$ref": "#/components/schemas/Problem"});
            self.validate("a problem", &schema, answer);
        }
    }

    fn validate(&self, name: &str, schema: &Value, answer: &Answer) {
        let validator = self.validator(schema);
        let body = answer.json();
        let faults: Vec<String> = validator
            .iter_errors(&body)
            .map(|error| format!("{} at {}", error, error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{name} {} breaks openapi.yaml: {faults:#?}\n{body:#}", answer.status());
    }

    fn validator(&self, schema: &Value) -> Arc<Validator> {
        let mut compiled = self.compiled.lock().expect("no panic under the lock");
        let validator = compiled.entry(schema.to_string()).or_insert_with(|| {
            // The schema at the root of the document's components, so that references resolve.
            let mut root = schema.as_object().expect("a schema is an object").clone();
            root.insert("components".into(), self.document["components"].clone());
            Arc::new(jsonschema::validator_for(&Value::Object(root)).expect("the schema compiles"))
        });
        Arc::clone(validator)
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (mut left, mut right) = (template.split('/'), path.split('/'));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(pattern), Some(word))
                if pattern == word || (pattern.starts_with('{') && !word.is_empty()) => {}
            _ => return false,
        }
    }
}

fn base(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn media_type(answer: &Answer) -> String {
    base(answer.header("content-type").unwrap_or_default())
}

fn is_json(media: &str) -> bool {
    media == "application/json" || media.ends_with("+json")
}
