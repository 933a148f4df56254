//! Parts: what sites contribute beside columns, and how it is put together.
//!
//! A member of a part is a file under the key of the condition whose cells it comes from, in the part's section: merged and
//! withdrawn like columns. What the members are together is a pure function of them, in an order that everybody has: that of
//! their keys. So it does not matter who puts them together, or in which order they came.

use std::collections::BTreeMap;

use crate::{
    condition::{ConditionKey, Section},
    error::{Error, Result},
    id::Name,
    layout::{Derivation, Layout, Rule},
    limits,
    pool::Pool,
    state_dict::StateDict,
    tree,
};

/// A member of a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Member {
    /// Under [`Rule::Union`]: tensors, a small model say.
    Tensors(StateDict),
    /// Under [`Rule::Pool`]: sums.
    Sums(Pool),
}

impl Member {
    /// The file that travels and is stored; the same bytes for the same member.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Tensors(tensors) => tensors.to_safetensors(None),
            Self::Sums(pool) => pool.to_bytes(),
        }
    }

    /// The sums, if it is some.
    pub fn as_sums(&self) -> Option<&Pool> {
        match self {
            Self::Sums(pool) => Some(pool),
            Self::Tensors(_) => None,
        }
    }

    /// Reads what [`Self::to_bytes`] wrote, under the rule of its part.
    ///
    /// # Errors  [`Error::Decode`], [`Error::TooLarge`]; [`Error::InvalidValue`] for other tables than the rule has
    pub fn from_bytes(rule: &Rule, bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > limits::PART_BYTES {
            let (found, limit) = (bytes.len() as u64, limits::PART_BYTES);
            return Err(Error::TooLarge { what: WHAT.to_owned(), found, limit, unit: "bytes" });
        }
        match rule {
            Rule::Union => StateDict::from_safetensors(WHAT, bytes).map(|(tensors, _)| Self::Tensors(tensors)),
            Rule::Pool { tables } => {
                let pool = Pool::from_bytes(bytes)?;
                if pool.specs() == tables { Ok(Self::Sums(pool)) } else { Err(not_of_the_rule()) }
            }
        }
    }
}

/// What the cells of one condition contribute to a part, before it is known whether it may leave.
#[derive(Clone, PartialEq, Debug)]
pub struct Contribution {
    /// The part.
    pub part: Name,
    /// The value.
    pub value: Member,
    /// The cells that each entry of a pool is made of, by position; a policy's thresholds look at them. Tensors stand under the
    /// empty name, and one that is made of some of the cells also under its own.
    pub cells: BTreeMap<String, Vec<usize>>,
}

/// The members of a pool added up.
///
/// # Errors  [`Error::InvalidValue`] for a member of another rule or with other tables, or a sum out of range
pub fn pooled<'a>(rule: &Rule, members: impl IntoIterator<Item = &'a Member>) -> Result<Pool> {
    let Rule::Pool { tables } = rule else { return Err(not_of_the_rule()) };
    let mut total = Pool::new(tables.clone());
    for member in members {
        let Member::Sums(pool) = member else { return Err(not_of_the_rule()) };
        total.absorb(pool)?;
    }
    Ok(total)
}

/// Whether [`derive()`] has this function.
pub fn is_known(function: &Name) -> bool {
    function.as_str() == SUM || tree::is_function(function)
}

/// Whether a value is made of the members of a section.
pub fn reads(derivation: &Derivation, section: &Section) -> bool {
    let Section::Part(part) = section else { return false };
    let classifies = match derivation.function.as_str() {
        tree::FUNCTION => part.as_str() == tree::MACHINES,
        tree::FUNCTION_WITH_POINTS => [tree::MACHINES, tree::POINTS].contains(&part.as_str()),
        _ => false,
    };
    classifies || *part == derivation.part
}

/// A value that is derived by a function that every program has; `None` for another function. That one's value is computed by
/// those who know it, and the coordinators see to it that all of them agree. Of the members it takes those that it [`reads`].
///
/// # Errors  those of [`pooled`] and of [`tree::derive()`]
pub fn derive(
    derivation: &Derivation,
    layout: &Layout,
    members: &BTreeMap<ConditionKey, Member>,
) -> Result<Option<Vec<u8>>> {
    let section = Section::Part(derivation.part.clone());
    match derivation.function.as_str() {
        SUM => {
            let of_part = members.iter().filter(|(key, _)| *key.section() == section).map(|(_, member)| member);
            let rule = layout.rule(&section).ok_or_else(not_of_the_rule)?;
            Ok(Some(pooled(rule, of_part)?.to_bytes()))
        }
        tree::FUNCTION | tree::FUNCTION_WITH_POINTS => Ok(Some(tree::derive(members)?)),
        _ => Ok(None),
    }
}

/// The function that adds up a pool.
pub const SUM: &str = "sum-1";
const WHAT: &str = "member of a part";

fn not_of_the_rule() -> Error {
    let found = "something else".to_owned();
    Error::InvalidValue { what: WHAT, found, expected: "what the reference's rule for it says" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        condition,
        pool::{TableSpec, TableSpecs},
    };

    fn specs() -> TableSpecs {
        BTreeMap::from([("n".to_owned(), TableSpec::counts(&[])), ("sum".to_owned(), TableSpec::sums(&[2]))])
    }

    fn rule() -> Rule {
        Rule::Pool { tables: specs() }
    }

    /// The member of a site's batch; a function of both, as sums are of cells.
    fn member(site: u8, batch: u8) -> (ConditionKey, Member) {
        let mut pool = Pool::new(specs());
        for label in ["T cell", "B cell"].into_iter().take(1 + usize::from(batch % 2)) {
            pool.add(label, "n", 0, f64::from(site) + 1.0).unwrap();
            pool.add(label, "sum", 0, 0.1 * f64::from(batch)).unwrap();
            pool.add(label, "sum", 1, -1e9 / (f64::from(site) + 3.0)).unwrap();
        }
        (format!("s{site}/d+counts/b{batch}").parse().unwrap(), Member::Sums(pool))
    }

    type Members = BTreeMap<ConditionKey, Member>;

    fn members() -> impl Strategy<Value = Members> {
        proptest::collection::btree_set((0_u8..4, 0_u8..3), 0..8)
            .prop_map(|drawn| drawn.into_iter().map(|(site, batch)| member(site, batch)).collect())
    }

    fn derived(function: &str, members: &BTreeMap<ConditionKey, Member>) -> Option<Vec<u8>> {
        let part: Name = "counts".parse().unwrap();
        let mut layout = Layout::of_axes(Vec::new());
        layout.parts.insert(part.clone(), rule());
        derive(&Derivation { function: function.parse().unwrap(), part }, &layout, members).unwrap()
    }

    fn total(members: &BTreeMap<ConditionKey, Member>) -> Vec<u8> {
        derived(SUM, members).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_merged_in_any_order_adds_up_to_the_same_bytes(a in members(), b in members(), c in members()) {
            let merge = |x: &Members, y: &Members| condition::merge(x, y).unwrap();
            let abc = total(&merge(&merge(&a, &b), &c));
            prop_assert_eq!(&abc, &total(&merge(&c, &merge(&b, &a))));
            prop_assert_eq!(&abc, &total(&merge(&merge(&a, &b), &merge(&c, &a))));
        }

        #[test]
        fn what_is_withdrawn_leaves_no_trace_in_the_sum(a in members(), b in members()) {
            let new: BTreeMap<_, _> = b.into_iter().filter(|(key, _)| !a.contains_key(key)).collect();
            let merged = condition::merge(&a, &new).unwrap();
            prop_assert_eq!(total(&condition::withdraw(&merged, new.keys()).unwrap()), total(&a));
        }

        #[test]
        fn the_order_in_which_members_are_given_does_not_matter(a in members()) {
            prop_assert_eq!(pooled(&rule(), a.values().rev()).unwrap().to_bytes(), total(&a));
        }
    }

    #[test]
    fn entries_of_one_name_are_added_and_of_different_names_are_not() {
        let members = BTreeMap::from([member(0, 0), member(1, 1), member(2, 1)]);
        let total = pooled(&rule(), members.values()).unwrap();
        let n = |label: &str| total.table(label, "n").unwrap().to_f64()[0];
        assert_eq!((total.entries().len(), n("T cell"), n("B cell")), (2, 6.0, 5.0));
    }

    #[test]
    fn a_member_round_trips_under_its_rule_and_under_no_other() {
        let (_, sums) = member(0, 0);
        assert_eq!(Member::from_bytes(&rule(), &sums.to_bytes()).unwrap(), sums);
        let tensors = Member::Tensors(StateDict::new());
        assert_eq!(Member::from_bytes(&Rule::Union, &tensors.to_bytes()).unwrap(), tensors);
        assert!(Member::from_bytes(&rule(), &tensors.to_bytes()).is_err());
        let other = Rule::Pool { tables: TableSpecs::new() };
        assert!(Member::from_bytes(&other, &sums.to_bytes()).is_err());
        assert!(pooled(&Rule::Union, []).is_err() && pooled(&rule(), [&tensors]).is_err());
        assert!(derived("hpl-99", &BTreeMap::new()).is_none());
    }
}
