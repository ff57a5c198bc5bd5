//! The pages of `docs/cookbook`, played as they are written. A block of code says after its language what it is for:
//!
//! ```text
//! ```conf /etc/some/file       a file, for every host that has a name in `play`
//! ```sh /etc/some/script 755   one that is executable
//! ```sh both                   commands for every host
//! ```sh alpha                  commands for one
//! ```sh look                   commands or a file, for which the test finds the time and place (`Recipe::later`, `Recipe::text`)
//! ```
//!
//! A block without such a word fails the test: nothing on a page goes untried. Indented lines are not played.

use crate::cluster::{Answer, Host};
use std::cell::RefCell;
use std::collections::BTreeSet;

struct Block {
    words: Vec<String>,
    text: String,
}

/// A page that is played.
pub struct Recipe {
    name: String,
    blocks: Vec<Block>,
    /// What tests put into the place of what a reader has, for instance a disk.
    replaced: Vec<(String, String)>,
    used: RefCell<BTreeSet<String>>,
}

impl Recipe {
    /// `docs/cookbook/NAME.md`.
    ///
    /// # Panics
    /// If it is not there, or a block does not say what it is for.
    pub fn read(name: &str) -> Self {
        let path = format!("{}/../docs/cookbook/{name}.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut blocks = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(fence) = line.strip_prefix("```") else { continue };
            let words: Vec<_> = fence.split_whitespace().skip(1).map(str::to_owned).collect();
            assert!(!words.is_empty(), "{path}: a block that does not say what it is for: {line}");
            let inside = lines.by_ref().take_while(|line| *line != "```");
            let text = inside.map(|line| format!("{line}\n")).collect();
            blocks.push(Block { words, text });
        }
        let used = RefCell::default();
        Self { name: name.to_owned(), blocks, replaced: Vec::new(), used }
    }

    /// What stands on the page as `from` is played as `to`.
    ///
    /// # Panics
    /// If it does not stand there.
    #[must_use]
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.blocks.iter().any(|block| block.text.contains(from)), "no {from}");
        self.replaced.push((from.to_owned(), to.to_owned()));
        self
    }

    fn replaced(&self, block: &Block) -> String {
        let replaced = self.replaced.iter();
        replaced.fold(block.text.clone(), |text, (from, to)| text.replace(from, to))
    }

    /// Plays the page from its begin to its end, but for what is left for later.
    ///
    /// # Panics
    /// If a command fails.
    pub fn play(&self, hosts: &[&Host]) {
        for block in &self.blocks {
            let (label, text) = (&block.words[0], self.replaced(block));
            if label.starts_with('/') {
                let mode = block.words.get(1).map_or("644", String::as_str);
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                hosts.iter().for_each(|host| host.put(label, mode, &text));
            } else {
                for host in hosts.iter().filter(|host| label == "both" || host.name() == label) {
                    host.must(&["sh", "-euc", &text]);
                }
            }
        }
    }

    /// The blocks of that label, not played.
    ///
    /// # Panics
    /// If there are none.
    pub fn text(&self, label: &str) -> String {
        self.used.borrow_mut().insert(label.to_owned());
        let blocks = self.blocks.iter().filter(|block| block.words[0] == label);
        let text: String = blocks.map(|block| self.replaced(block)).collect();
        assert!(!text.is_empty(), "{}: no block `{label}`", self.name);
        text
    }

    /// Plays the blocks of that label.
    ///
    /// # Panics
    /// If there are none, or they fail.
    pub fn later(&self, label: &str, host: &Host) -> Answer {
        let answer = host.run(&["sh", "-euc", &self.text(label)]);
        assert!(answer.is_ok(), "{}: `{label}` on {}: {}", self.name, host.name(), answer.said);
        answer
    }

    /// # Panics
    /// If a block was neither played nor done later.
    pub fn assert_all_played(&self, hosts: &[&Host]) {
        for block in &self.blocks {
            let label = &block.words[0];
            let is_played = label.starts_with('/')
                || label == "both"
                || hosts.iter().any(|host| host.name() == label)
                || self.used.borrow().contains(label);
            assert!(is_played, "{}: nobody played `{label}`:\n{}", self.name, block.text);
        }
    }
}
