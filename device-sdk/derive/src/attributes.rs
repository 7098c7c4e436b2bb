//! `#[parlor(…)]`.

use syn::{Attribute, Expr, ExprLit, ExprUnary, Lit, LitStr, UnOp};

/// What is said in `#[parlor(…)]`.
#[derive(Default)]
pub(crate) struct Attributes {
    pub(crate) name: Option<String>,
    pub(crate) min: Option<Expr>,
    pub(crate) max: Option<Expr>,
    pub(crate) unit: Option<String>,
    pub(crate) read_only: bool,
}

impl Attributes {
    pub(crate) fn read(attributes: &[Attribute]) -> syn::Result<Self> {
        let mut all = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("parlor")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    all.name = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("unit") {
                    let unit: LitStr = meta.value()?.parse()?;
                    if unit.value().contains(['"', '\\']) {
                        return Err(meta.error("a unit without quotation marks and backslashes is needed"));
                    }
                    all.unit = Some(unit.value());
                } else if meta.path.is_ident("min") {
                    all.min = Some(number(meta.value()?.parse()?)?);
                } else if meta.path.is_ident("max") {
                    all.max = Some(number(meta.value()?.parse()?)?);
                } else if meta.path.is_ident("read_only") {
                    all.read_only = true;
                } else {
                    return Err(meta.error("name, min, max, unit or read_only is expected"));
                }
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Members of the JSON object that describes a field.
    pub(crate) fn described(&self) -> String {
        let mut text = String::new();
        for (name, value) in [("min", &self.min), ("max", &self.max)] {
            if let Some(digits) = value.as_ref().and_then(digits) {
                text.push_str(&format!(",\"{name}\":{digits}"));
            }
        }
        if let Some(unit) = &self.unit {
            text.push_str(&format!(",\"unit\":\"{unit}\""));
        }
        text
    }
}

fn number(expr: Expr) -> syn::Result<Expr> {
    if digits(&expr).is_some() { Ok(expr) } else { Err(syn::Error::new_spanned(expr, "a number is expected")) }
}

/// A number as it stands in JSON.
fn digits(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(int), .. }) => Some(int.base10_digits().to_owned()),
        Expr::Lit(ExprLit { lit: Lit::Float(float), .. }) => Some(float.base10_digits().to_owned()),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => digits(expr).map(|digits| format!("-{digits}")),
        _ => None,
    }
}
