//! Conditions over a token's claims, in the Common Expression Language (<https://cel.dev>).
//!
//! Operators write them in the configuration; they are compiled and inspected once, when it is loaded, and evaluated
//! for every request. What could make an evaluation dear or deep is refused when it is compiled, because the language
//! has no budget at run time: a condition is a tree of at most [`Expression::MAX_DEPTH`] levels with loops at most two
//! deep, over claims whose size the token bounds, and a regular expression, which is compiled anew at each use, is a
//! short literal.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::LazyLock;

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};
use cel::objects::Key;
use cel::{Context, ExecutionError, Program};
use serde_json::Map;

use crate::model::Invalid;

/// The functions of the language. Building them costs more than an evaluation, so it is done once.
static ROOT: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);

/// The one variable that conditions can name.
const VARIABLE: &str = "claims";

/// What the thread that compiles may need. The parser descends up to 96 levels of nesting at some 25 KiB each, and
/// a chain of operators makes a tree as deep as it is long: both pass the 2 MiB that threads commonly have. The memory
/// is only touched when it is needed.
const COMPILER_STACK: usize = 64 << 20;

/// A compiled condition such as `"creator" in claims.roles`.
pub struct Expression {
    text: Box<str>,
    program: Program,
    reads: ClaimNames,
}

impl Expression {
    /// Longer conditions are refused.
    pub const MAX_BYTES: usize = 4096;

    /// Conditions that nest deeper are refused: an evaluation descends as far, on whatever stack the caller has.
    pub const MAX_DEPTH: usize = 24;

    /// Longer regular expressions are refused.
    pub const MAX_PATTERN_BYTES: usize = 256;

    /// How many `all`, `exists`, `map` or `filter` may stand inside one another.
    pub const MAX_LOOPS: usize = 2;

    /// Compiles `text`.
    ///
    /// # Errors
    /// When it is no expression (the message says where), is too long or too deep, or names what does not exist.
    pub fn compile(text: &str) -> Result<Self, Invalid> {
        if text.len() > Self::MAX_BYTES {
            return Err(Invalid::new(format!("a condition has at most {} bytes", Self::MAX_BYTES)));
        }
        // What is refused is dropped over there as well, since dropping descends as deep as compiling.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("compile-condition".to_owned())
                .stack_size(COMPILER_STACK)
                .spawn_scoped(scope, || Self::compile_here(text))
                .map_err(|error| Invalid::new(format!("no thread to compile the condition on: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(Invalid::new("the condition cannot be compiled")))
        })
    }

    fn compile_here(text: &str) -> Result<Self, Invalid> {
        let program = Program::compile(text).map_err(|errors| explain(&errors))?;
        let mut inspection = Inspection::default();
        inspection.visit(program.expression(), 1)?;
        let reads = inspection.claim_names();
        Ok(Self { text: text.into(), program, reads })
    }

    /// Whether the condition is true of `claims`. Anything but `true` is false: an absent claim, an error, another type.
    ///
    /// For more than one condition about the same claims, convert them once: [`Claims::new`].
    pub fn holds(&self, claims: &Map<String, serde_json::Value>) -> bool {
        self.holds_for(&Claims::new(claims, &self.reads))
    }

    /// [`Expression::holds`], of claims that have been converted already: those that it reads, and perhaps more.
    pub fn holds_for(&self, claims: &Claims) -> bool {
        matches!(self.program.execute(&claims.0), Ok(cel::Value::Bool(true)))
    }

    /// The claims that can make a difference to it.
    pub fn reads(&self) -> &ClaimNames {
        &self.reads
    }

    /// What the operator wrote.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The claims that conditions read. Tokens have many more, and what nobody reads need not be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimNames {
    /// Some condition speaks of the claims as a whole, or computes a name.
    All,
    /// These and no others.
    Only(BTreeSet<String>),
}

impl ClaimNames {
    /// What is read by any of several conditions.
    pub fn of_all<'a>(conditions: impl IntoIterator<Item = &'a Expression>) -> Self {
        let mut union = BTreeSet::new();
        for condition in conditions {
            match &condition.reads {
                Self::All => return Self::All,
                Self::Only(names) => union.extend(names.iter().cloned()),
            }
        }
        Self::Only(union)
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// The claims of one token, converted for any number of conditions.
pub struct Claims(Context<'static, 'static>);

impl Claims {
    /// Converts those of the claims that have one of `names`, in time linear in their size.
    pub fn new(claims: &Map<String, serde_json::Value>, names: &ClaimNames) -> Self {
        let mut scope = ROOT.new_inner_scope();
        let read = claims.iter().filter(|(name, _)| names.contains(name));
        scope.add_variable_from_value(VARIABLE, convert_map(read));
        Self(scope)
    }
}

/// Says nothing: claims may be personal.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

fn convert(value: &serde_json::Value) -> cel::Value {
    match value {
        serde_json::Value::Null => cel::Value::Null,
        serde_json::Value::Bool(value) => cel::Value::Bool(*value),
        // Integers become `int` where they fit: the language has no `uint + int`, and literals are `int`.
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => cel::Value::Int(int),
            (None, Some(uint), _) => cel::Value::UInt(uint),
            (None, None, Some(float)) => cel::Value::Float(float),
            (None, None, None) => cel::Value::Null,
        },
        serde_json::Value::String(text) => cel::Value::from(text.as_str()),
        serde_json::Value::Array(items) => cel::Value::from(items.iter().map(convert).collect::<Vec<_>>()),
        serde_json::Value::Object(map) => convert_map(map),
    }
}

fn convert_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> cel::Value {
    let entries = map.into_iter().map(|(key, value)| (Key::from(key.as_str()), convert(value)));
    cel::Value::from(entries.collect::<HashMap<_, _>>())
}

/// The first error of the parser, with its place, short enough for a line of a log.
fn explain(errors: &cel::ParseErrors) -> Invalid {
    let Some(first) = errors.errors.first() else { return Invalid::new("the condition is no expression") };
    let (line, column) = first.pos;
    let message: String = first.msg.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    Invalid::new(format!("the condition is no expression, at line {line}, column {column}: {message}"))
}

/// A walk through a compiled condition that refuses what [`Expression`] promises not to contain, and finds out which
/// claims it reads.
#[derive(Default)]
struct Inspection<'a> {
    /// The variables of the loops around the place, two or three each.
    bound: Vec<&'a str>,
    loops: usize,
    /// How often the variable stands there.
    mentions: usize,
    /// The fields of it that are selected, one for each of those mentions that is followed by one.
    selected: Vec<&'a str>,
}

impl<'a> Inspection<'a> {
    fn visit(&mut self, node: &'a IdedExpr, depth: usize) -> Result<(), Invalid> {
        if depth > Expression::MAX_DEPTH {
            return Err(Invalid::new(format!("the condition nests deeper than {} levels", Expression::MAX_DEPTH)));
        }
        let below = depth + 1;
        match &node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                self.mentions += usize::from(name == VARIABLE);
                self.check_name(name)
            }
            Expr::Select(select) => {
                if matches!(&select.operand.expr, Expr::Ident(name) if name == VARIABLE) {
                    self.selected.push(&select.field);
                }
                self.visit(&select.operand, below)
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, below)),
            Expr::Map(map) => self.visit_entries(&map.entries, below),
            Expr::Struct(_) => Err(Invalid::new("the condition makes a message, and there are no message types")),
            Expr::Call(call) => {
                check_function(&call.func_name)?;
                if call.func_name == "matches" {
                    check_pattern(call.args.last())?;
                }
                call.target.iter().try_for_each(|target| self.visit(target, below))?;
                call.args.iter().try_for_each(|argument| self.visit(argument, below))
            }
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, below)?;
                self.visit(&comprehension.accu_init, below)?;
                if self.loops == Expression::MAX_LOOPS {
                    let allowed = Expression::MAX_LOOPS;
                    return Err(Invalid::new(format!("the condition has loops more than {allowed} deep")));
                }
                let outside = self.bound.len();
                self.loops += 1;
                self.bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.bound.extend(comprehension.iter_var2.as_deref());
                self.visit(&comprehension.loop_cond, below)?;
                self.visit(&comprehension.loop_step, below)?;
                self.loops -= 1;
                self.visit(&comprehension.result, below)?;
                self.bound.truncate(outside);
                Ok(())
            }
        }
    }

    fn visit_entries(&mut self, entries: &'a [IdedEntryExpr], depth: usize) -> Result<(), Invalid> {
        entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::StructField(field) => self.visit(&field.value, depth),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key, depth)?;
                self.visit(&entry.value, depth)
            }
        })
    }

    fn claim_names(self) -> ClaimNames {
        if self.mentions > self.selected.len() {
            return ClaimNames::All;
        }
        ClaimNames::Only(self.selected.into_iter().map(str::to_owned).collect())
    }

    /// Refuses names that would make the condition an error, and so false, for ever.
    fn check_name(&self, name: &str) -> Result<(), Invalid> {
        let known = name == VARIABLE || self.bound.contains(&name) || is_declared(name);
        if known {
            Ok(())
        } else {
            Err(Invalid::new(format!("the condition names {name:?}, and there is only `claims`")))
        }
    }
}

fn check_function(name: &str) -> Result<(), Invalid> {
    // Operators are functions with names that cannot be written, such as `_&&_`.
    let written = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !written || is_declared(&format!("{name}()")) || is_declared(&format!("''.{name}()")) {
        Ok(())
    } else {
        Err(Invalid::new(format!("the condition calls {name:?}, and there is no such function")))
    }
}

/// Whether evaluating the small expression `text` finds all names in it: types and functions are known only that way.
fn is_declared(text: &str) -> bool {
    let program = Program::compile(text);
    program.is_ok_and(|program| !matches!(program.execute(&ROOT), Err(ExecutionError::UndeclaredReference(_))))
}

/// A pattern from a claim would let users spend the broker's time; one that is wrong would be false for ever.
fn check_pattern(pattern: Option<&IdedExpr>) -> Result<(), Invalid> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|node| &node.expr) else {
        return Err(Invalid::new("the pattern of `matches` must be a literal text"));
    };
    let pattern = pattern.inner();
    if pattern.len() > Expression::MAX_PATTERN_BYTES {
        let allowed = Expression::MAX_PATTERN_BYTES;
        return Err(Invalid::new(format!("the pattern of `matches` has at most {allowed} bytes")));
    }
    let mut scope = ROOT.new_inner_scope();
    scope.add_variable_from_value("pattern", pattern);
    let tried = Program::compile("''.matches(pattern)").map(|program| program.execute(&scope));
    if matches!(tried, Ok(Ok(cel::Value::Bool(_)))) {
        Ok(())
    } else {
        Err(Invalid::new(format!("{pattern:?} is no regular expression")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map<String, serde_json::Value> {
        let claims = serde_json::json!({
            "sub": "ada",
            "roles": ["creator", "editor"],
            "level": 3,
            "debt": -2,
            "huge": u64::MAX,
            "ratio": 0.5,
            "nothing": null,
            "firebase": {"tenant": "acme", "verified": true},
            "groups": [{"id": 1}, {"id": 2}],
        });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn a_condition_holds_only_where_it_is_true() {
        for (text, expected) in [
            (r#""creator" in claims.roles"#, true),
            (r#""admin" in claims.roles"#, false),
            ("claims.firebase.verified", true),
            ("claims.level >= 3 && claims.level + 1 == 4", true),
            ("claims.debt < 0 && claims.ratio == 0.5", true),
            ("claims.huge > 9223372036854775807", true),
            ("has(claims.level)", true),
            ("has(claims.absent)", false),
            ("has(claims.nothing) && claims.nothing == null", true),
            ("!has(claims.absent)", true),
            (r#"has(claims.absent) && claims.absent == "x""#, false),
            (r#"claims["sub"] == 'ada'"#, true),
            (r#"claims.roles.exists(role, role.startsWith("edit"))"#, true),
            ("claims.groups.all(g, claims.groups.exists(h, h.id >= g.id))", true),
            (r#"claims.sub.matches("^a.a$")"#, true),
            ("type(claims.level) == int", true),
            ("size(claims.roles) == 2", true),
            // Not true is false: absence, errors, other types.
            ("claims.absent", false),
            ("!claims.absent", false),
            ("claims.absent.deeper == 1", false),
            ("claims.sub", false),
            ("claims.level", false),
            ("claims.sub + 1 == 2", false),
            ("claims.level / 0 == 1", false),
            ("claims.huge * 2u > 1u", false),
            ("claims.roles[7] == 'x'", false),
            ("claims", false),
            // Logic forgives an error on one side, as the language has it.
            ("claims.absent == 1 || claims.level == 3", true),
        ] {
            let condition = Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(condition.holds(&claims()), expected, "{text}");
            let all = Claims::new(&claims(), &ClaimNames::All);
            assert_eq!(condition.holds_for(&all), expected, "{text}, of all claims");
        }
    }

    #[test]
    fn claims_are_converted_once_for_many_conditions() {
        let conditions = ["claims.level == 3", "claims.sub == 'ada'"].map(|text| Expression::compile(text).unwrap());
        let converted = Claims::new(&claims(), &ClaimNames::of_all(&conditions));
        assert!(conditions.iter().all(|condition| condition.holds_for(&converted)));
        assert!(!Expression::compile("claims.level == 4").unwrap().holds_for(&converted));
        assert!(!format!("{converted:?}").contains("ada"));
    }

    #[test]
    fn only_claims_that_are_read_are_converted() {
        for (text, expected) in [
            ("true", Some(&[][..])),
            ("claims.sub == 'ada'", Some(&["sub"])),
            ("claims.firebase.tenant == claims.sub", Some(&["firebase", "sub"])),
            ("has(claims.level) && claims.level > 1", Some(&["level"])),
            ("claims.groups.all(g, claims.groups.exists(h, h.id >= g.id))", Some(&["groups"])),
            ("claims['sub'] == 'ada'", None),
            ("claims.sub == 'ada' && size(claims) > 3", None),
            ("claims.exists(name, name == claims.sub)", None),
        ] {
            let names = |names: &[&str]| ClaimNames::Only(names.iter().map(|name| (*name).to_owned()).collect());
            let expected = expected.map_or(ClaimNames::All, names);
            let condition = Expression::compile(text).unwrap();
            assert_eq!(*condition.reads(), expected, "{text}");
            assert_eq!(ClaimNames::of_all([&condition]), expected, "{text}");
        }
    }

    #[test]
    fn what_can_never_hold_is_refused_with_its_reason() {
        let long_pattern = format!("claims.sub.matches('{}')", "a".repeat(257));
        for (name, text, reason) in [
            ("empty", "", "no expression, at line 1, column 1"),
            ("half", "claims.level ==", "no expression, at line 1"),
            ("two lines", "claims.level == 1\n&& (", "at line 2"),
            ("an unknown variable", "claim.level == 1", "\"claim\""),
            ("a loop variable outside its loop", "[1].all(x, x > 0) && x > 0", "\"x\""),
            ("an absolute name", ".claims.level == 1", "only `claims`"),
            ("an unknown function", "upper(claims.sub) == 'A'", "\"upper\""),
            ("an unknown method", "claims.sub.lower() == 'a'", "\"lower\""),
            ("a message", "Thing{a: 1} == 1", "message"),
            ("a pattern that a claim decides", "claims.sub.matches(claims.level)", "literal"),
            ("a pattern that is none", "claims.sub.matches('(')", "no regular expression"),
            ("a long pattern", &long_pattern, "at most 256 bytes"),
            ("loops in loops", "[1].all(a, [1].all(b, [1].all(c, true)))", "more than 2 deep"),
        ] {
            let refusal = Expression::compile(text).expect_err(name).to_string();
            assert!(refusal.contains(reason), "{name}: {refusal}");
            assert!(refusal.len() < 400 && !refusal.contains('\n'), "{name}: {refusal}");
        }
    }

    #[test]
    fn alternatives_and_loops_side_by_side_are_not_deep() {
        let many = vec!["claims.level == 3"; 100].join(" || ");
        assert!(Expression::compile(&many).unwrap().holds(&claims()));
        let loops = vec!["claims.roles.exists(r, r == 'editor')"; 20].join(" && ");
        assert!(Expression::compile(&loops).unwrap().holds(&claims()));
    }

    /// Each of these overflows a 2 MiB stack when it is compiled or evaluated without a bound.
    #[test]
    fn no_text_overflows_the_stack() {
        let max = Expression::MAX_BYTES;
        for (name, text) in [
            ("parentheses", format!("{}1{}", "(".repeat(max / 2 - 1), ")".repeat(max / 2 - 1))),
            ("fewer parentheses", format!("{}1{}", "(".repeat(90), ")".repeat(90))),
            ("open parentheses", "(".repeat(max)),
            ("lists", format!("{}1{}", "[".repeat(max / 2 - 1), "]".repeat(max / 2 - 1))),
            ("fewer lists", format!("{}1{}", "[".repeat(90), "]".repeat(90))),
            ("maps", "{1:".repeat(max / 3)),
            ("a sum", format!("1{}", "+1".repeat(max / 2 - 1))),
            ("a comparison", format!("1{}", "==1".repeat(max / 3 - 1))),
            ("selections", format!("claims{}", ".a".repeat(max / 2 - 3))),
            ("a presence test", format!("has(claims{})", ".a".repeat(max / 2 - 9))),
            ("indices", format!("claims{}", "[0]".repeat(max / 3 - 2))),
            ("calls", format!("claims{}", ".size()".repeat(max / 7 - 1))),
            ("choices", format!("{}1", "true?1:".repeat(max / 7 - 1))),
            ("loops", format!("{}true{}", "[1].all(x,".repeat(max / 11), ")".repeat(max / 11))),
            ("too long", "1".repeat(max + 1)),
        ] {
            assert!(text.len() <= max + 1, "{name}");
            assert!(Expression::compile(&text).is_err() || name.starts_with("fewer parentheses"), "{name}");
        }
    }

    #[test]
    fn the_deepest_condition_is_evaluated_on_half_a_common_stack() {
        let deepest = format!("1{} > 0", "+1".repeat(Expression::MAX_DEPTH - 2));
        let condition = Expression::compile(&deepest).unwrap();
        assert!(Expression::compile(&format!("1+{deepest}")).is_err());
        let evaluated = std::thread::Builder::new().stack_size(1 << 20).spawn(move || condition.holds(&Map::new()));
        assert!(evaluated.unwrap().join().unwrap());
    }
}
