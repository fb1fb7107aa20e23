//! The flags that name an allocation policy

use clap::ValueEnum;
use meso_core::allocate::Rule;
use meso_core::id::is_id;
use meso_core::json::quoted;

use crate::Failure;

/// Which policy, and of which resource where that is its matter.
#[derive(Clone, Debug, clap::Args)]
pub struct PolicyArgs {
    /// How the next to be served is chosen
    #[arg(long, value_enum, value_name = "POLICY")]
    pub policy: Option<PolicyName>,
    /// With --policy fair: the kind of resource that is shared alike
    #[arg(long, value_name = "KIND")]
    pub resource: Option<String>,
}

/// The policies that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyName {
    /// Weighted dominant resource fairness over the tree of roles: the smallest share is next
    Drf,
    /// The highest priority to the end of its demand; equals share as with drf
    Priority,
    /// Weighted max-min on one kind of resource
    Fair,
    /// By lot, in proportion to the weights
    Random,
}

impl PolicyArgs {
    /// The rule that was asked for, if one was.
    ///
    /// # Errors
    /// A resource without the policy that wants one, or one that cannot be.
    pub fn rule(&self) -> Result<Option<Rule>, Failure> {
        if let Some(resource) = self.resource.as_deref().filter(|resource| !is_id(resource) || *resource == "ports") {
            return Err(Failure::usage(format!("--resource: {} cannot be shared alike", quoted(resource))).hint("cpus, mem, disk, gpus, or a kind of the agents' own"));
        }
        if self.resource.is_some() && self.policy != Some(PolicyName::Fair) {
            return Err(Failure::usage("--resource is for --policy fair").hint("--policy fair --resource cpus"));
        }
        Ok(self.policy.map(|policy| match policy {
            PolicyName::Drf => Rule::Drf,
            PolicyName::Priority => Rule::Priority,
            PolicyName::Fair => Rule::Fair { resource: self.resource.clone().unwrap_or_else(|| "cpus".to_owned()) },
            PolicyName::Random => Rule::Random,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(policy: Option<PolicyName>, resource: Option<&str>) -> Result<Option<Rule>, String> {
        PolicyArgs { policy, resource: resource.map(str::to_owned) }.rule().map_err(|failure| failure.what().to_owned())
    }

    /// Shows which rule the flags mean, and that a resource is taken only where it means something.
    #[test]
    fn rules() {
        assert_eq!(rule(None, None), Ok(None));
        assert_eq!(rule(Some(PolicyName::Priority), None), Ok(Some(Rule::Priority)));
        assert_eq!(rule(Some(PolicyName::Fair), None), Ok(Some(Rule::Fair { resource: "cpus".to_owned() })));
        assert_eq!(rule(Some(PolicyName::Fair), Some("mem")), Ok(Some(Rule::Fair { resource: "mem".to_owned() })));
        assert!(rule(Some(PolicyName::Drf), Some("mem")).is_err());
        assert!(rule(None, Some("mem")).is_err());
        for bad in ["", "a b", "ports", "-x"] {
            assert!(rule(Some(PolicyName::Fair), Some(bad)).is_err_and(|what| what.contains(bad)), "{bad}");
        }
    }
}
