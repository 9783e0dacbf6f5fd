//! Every fuzzer's body over its committed inputs: seeds, attacks, and whatever it found.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use mailraft_fuzz_bodies::TARGETS;

/// A committed corpus is small: what a fuzzer collects stays where it ran. In bytes.
const CORPUS_MAX_BYTES: u64 = 512 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
    directory.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_body_keeps_its_promises_over_its_corpus() {
    for (name, body) in TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 3, "{name} has {} inputs", inputs.len());
        assert!(inputs.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>() <= CORPUS_MAX_BYTES, "{name}");
        for path in inputs {
            let input = std::fs::read(&path).unwrap();
            let kept = std::panic::catch_unwind(|| body(&input));
            assert!(kept.is_ok(), "{name} over {}", path.display());
        }
        for nothing in [b"".as_slice(), b"\0", b"\r\n"] {
            body(nothing);
        }
    }
}

/// So many inputs like each of the corpus, where no environment variable MUTATIONS says otherwise.
const MUTATIONS: u64 = 40;

/// A generator of numbers (xorshift64*): what it makes of a seed stays the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }
}

/// The input with a few bytes changed, and a few ranges of it or of another left out, doubled or put elsewhere.
fn mutated(input: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    const BYTES: &[u8] = b"\r\n\0 .-:;,<>()[]{}\"\\@=?*%+/\x7f\x80\xff019aZ";
    let mut out = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(out.len() + 1);
        let end = (at + numbers.below(40)).min(out.len());
        match numbers.below(6) {
            0 => out.insert(at, BYTES[numbers.below(BYTES.len())]),
            1 if at < out.len() => out[at] = BYTES[numbers.below(BYTES.len())],
            2 if at < out.len() => out[at] ^= 1 << numbers.below(8),
            3 => drop(out.drain(at..end)),
            4 => {
                let doubled = out[at..end].to_vec();
                out.splice(at..at, doubled);
            }
            _ => {
                let from = numbers.below(other.len() + 1);
                let to = (from + numbers.below(200)).min(other.len());
                out.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    out
}

#[test]
fn every_body_keeps_its_promises_over_inputs_like_those() {
    let count = std::env::var("MUTATIONS").map_or(MUTATIONS, |count| count.parse().unwrap());
    for (name, body) in TARGETS {
        let mut inputs: Vec<Vec<u8>> = inputs(name).iter().map(|path| std::fs::read(path).unwrap()).collect();
        // In a fixed order, and none that takes long.
        inputs.retain(|input| input.len() <= 8 << 10);
        inputs.sort();
        let mut numbers = Numbers(1);
        for (n, input) in inputs.iter().enumerate() {
            for _ in 0..count {
                let other = &inputs[(n + numbers.below(inputs.len())) % inputs.len()];
                let input = mutated(input, other, &mut numbers);
                let kept = std::panic::catch_unwind(|| body(&input));
                assert!(kept.is_ok(), "{name} over {:?}", input.escape_ascii().to_string());
            }
        }
    }
}

#[test]
fn every_body_has_its_fuzzer_and_every_fuzzer_its_body() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let files = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let mut files: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    files.sort();
    let mut names = TARGETS.map(|(name, _)| name.to_owned());
    names.sort();
    assert_eq!(files, names);
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
}
