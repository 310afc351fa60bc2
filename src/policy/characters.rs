//! Which characters a client's or token's text may bring into an object name.

/// Characters that are invisible, or that change how their neighbours look: format characters (general category `Cf`),
/// default-ignorable code points (zero-width spaces and joiners, variation selectors, tags, fillers), bidirectional
/// controls and the two Unicode line separators. Sorted, both ends included.
///
/// From the Unicode Character Database, `DerivedGeneralCategory.txt` and `DerivedCoreProperties.txt`; a test holds it to
/// another implementation of them.
const INVISIBLE: [(u32, u32); 25] = [
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1_10BD, 0x1_10BD),
    (0x1_10CD, 0x1_10CD),
    (0x1_3430, 0x1_343F),
    (0x1_BCA0, 0x1_BCA3),
    (0x1_D173, 0x1_D17A),
    (0xE_0000, 0xE_0FFF),
];

/// Whether `character` can never stand in a part of an object name that a client or a token decides.
///
/// Control characters and what storage advises against (storage documentation, "Object naming guidelines"), both kinds
/// of slash, so that no part reaches out of its segment, and whatever cannot be seen or is no character.
pub(super) fn is_refused(character: char) -> bool {
    matches!(character, '/' | '\\') || is_refused_anywhere(character)
}

/// Whether `character` can never stand in an object name, a template's fixed text included.
pub(super) fn is_refused_anywhere(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control() || matches!(character, '#' | '[' | ']' | '*' | '?' | '\\');
    }
    let code = u32::from(character);
    let noncharacter = code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code);
    let invisible = || {
        let after = INVISIBLE.partition_point(|(first, _)| *first <= code);
        after > 0 && code <= INVISIBLE[after - 1].1
    };
    character.is_control() || noncharacter || invisible()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Expression;

    /// Whether `pattern` occurs in `text`, by the tables of the regular expressions that conditions use.
    fn occurs(pattern: &str, text: &str) -> bool {
        let condition = Expression::compile(&format!("claims.text.matches(r'{pattern}')")).unwrap();
        condition.holds(serde_json::json!({ "text": text }).as_object().unwrap())
    }

    #[test]
    fn exactly_the_documented_characters_are_refused() {
        let (refused, allowed): (String, String) = ('\0'..=char::MAX).partition(|character| is_refused(*character));
        let class = concat!(
            r"\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}\p{Bidi_Control}",
            r"/\\#\[\]*?"
        );
        assert!(!occurs(&format!("[{class}]"), &allowed), "a character is allowed that should be refused");
        assert!(!occurs(&format!("[^{class}]"), &refused), "a character is refused that should be allowed");
    }

    #[test]
    fn what_people_name_files_with_is_allowed() {
        for character in "aZ09 -_.,;:()'&+=@!~äéßñ日本語العربيةहिन्दी한☀🎉".chars() {
            assert!(!is_refused(character), "{character:?}");
        }
    }

    #[test]
    fn a_slash_is_refused_in_parts_but_not_in_templates() {
        assert!(is_refused('/') && !is_refused_anywhere('/'));
        assert!(is_refused('\\') && is_refused_anywhere('\\'));
    }
}
