//! Bytes as text for people: hexadecimal pairs, spaces where they please, remarks behind `#`.

/// Reads hexadecimal text.
pub fn parse(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is not a hexadecimal digit")))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte at the end");
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Writes hexadecimal text: `first` bytes on a line of their own, then 32 to a line.
pub fn format(bytes: &[u8], first: usize) -> String {
    let (head, body) = bytes.split_at(first.min(bytes.len()));
    let mut out = String::new();
    for line in std::iter::once(head).chain(body.chunks(32)) {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        out.push_str(&pairs.join(" "));
        out.push('\n');
    }
    out
}

/// The contents of every block of `document` that opens with "```hex name=…", by name.
pub fn blocks(document: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = document;
    while let Some((_, after)) = rest.split_once("```hex name=") {
        let (name, after) = after.split_once('\n').expect("a block has lines");
        let (text, after) = after.split_once("```").expect("a block is closed");
        found.push((name.trim().to_owned(), parse(text)));
        rest = after;
    }
    found
}
