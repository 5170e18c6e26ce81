//! "Did you mean …?": the closest of a few known words.

/// The candidate that `word` was most likely meant to be: equal but for case and `-`/`_`, or at most a
/// third of its letters wrong (an exchange of two neighbours counts as one).
///
/// ```
/// assert_eq!(yaml::nearest("matchPath", ["matchPaths", "matchPatterns"]), Some("matchPaths"));
/// assert_eq!(yaml::nearest("colour", ["path", "dir"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = fold(word);
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    let bound = (wanted.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= bound && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edit distance with exchanges of neighbours (optimal string alignment), in three rows.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(x != y))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_strangers_are_not() {
        let fields = [
            "path",
            "dir",
            "recursive",
            "readOnly",
            "ownerOnly",
            "fromSource",
        ];
        assert_eq!(nearest("paht", fields), Some("path"));
        assert_eq!(nearest("read_only", fields), Some("readOnly"));
        assert_eq!(nearest("fromsource", fields), Some("fromSource"));
        assert_eq!(nearest("recursiv", fields), Some("recursive"));
        assert_eq!(nearest("image", fields), None);
        assert_eq!(nearest("x", fields), None);
        assert_eq!(nearest("", fields), None);
    }
}
