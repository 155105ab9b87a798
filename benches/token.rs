//! What the check of a token costs: `cargo bench --bench token`. Best of several rounds, one thread.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tidegate::{
    auth::jwt::{Signer, Verifier, Wanted},
    config::Config,
    metrics::Metrics,
};

const ROUNDS: usize = 20;
const CHECKS: u32 = 2000;

fn main() {
    let folder = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    std::fs::write(&file, [b'x'; 32]).unwrap();
    for algorithm in ["HS256", "HS512"] {
        let toml = format!(
            "[auth.jwt]\nkey_file = '{}'\naudience = 'web'\nissuer = 'dev'\nalgorithms = ['{algorithm}']",
            file.display()
        );
        let jwt = Config::from_toml(&toml).unwrap().auth.jwt.unwrap();
        let verifier = Verifier::new(&jwt, &Arc::new(Metrics::new().unwrap())).unwrap();
        let wanted = Wanted {
            sub: "b7e1c5d2-3f4a-4b6c-8d9e-0f1a2b3c4d5e".into(),
            channels: vec!["orders:*".into(), "news".into(), "chat:7".into()],
            publish: vec!["chat:7".into()],
            aud: jwt.audience.clone(),
            iss: jwt.issuer.clone(),
        };
        let token = Signer::find(None, Some(&jwt)).unwrap().sign(&wanted, Duration::from_secs(3600)).unwrap();
        let round = || {
            let started = Instant::now();
            for _ in 0..CHECKS {
                black_box(verifier.verify(black_box(&token)).now_or_never().unwrap().unwrap());
            }
            started.elapsed() / CHECKS
        };
        let best = (0..ROUNDS).map(|_| round()).min().unwrap();
        println!("{algorithm}, {} bytes: {:.1} µs a check", token.len(), best.as_secs_f64() * 1e6);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
