//! `#[derive(Commands)]`, `#[derive(State)]`, `#[derive(Event)]` and `#[derive(Choice)]` for `parlor-device`: commands,
//! state and events of a device as Rust types, read from and written to JSON without an allocator, and described for
//! people's apps when the firmware is compiled.
//!
//! `#[parlor(…)]` on a variant or field: `name = "…"`; on a number: `min = …`, `max = …`, `unit = "…"`; on a field of the
//! state: `read_only`, so that nobody can desire it.

mod attributes;

use attributes::Attributes;
use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, Type, Variant, parse_macro_input};

/// Commands of a device: an enum with a variant for each. A variant without fields has no arguments; an argument whose
/// type is an `Option` may be left out.
#[proc_macro_derive(Commands, attributes(parlor))]
pub fn commands(input: TokenStream) -> TokenStream {
    expand(input, commands_of)
}

/// State of a device: a struct whose fields are what it reports.
#[proc_macro_derive(State, attributes(parlor))]
pub fn state(input: TokenStream) -> TokenStream {
    expand(input, state_of)
}

/// Events of a device: an enum with a variant for each.
#[proc_macro_derive(Event, attributes(parlor))]
pub fn event(input: TokenStream) -> TokenStream {
    expand(input, event_of)
}

/// A choice: an enum whose variants have no fields, for arguments and state.
#[proc_macro_derive(Choice, attributes(parlor))]
pub fn choice(input: TokenStream) -> TokenStream {
    expand(input, choice_of)
}

fn expand(input: TokenStream, derive: fn(&DeriveInput) -> syn::Result<Tokens>) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// The variants of an enum, with the names they have in JSON.
fn variants(input: &DeriveInput) -> syn::Result<Vec<(&Variant, Attributes, String)>> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(input.span(), "this can be derived for an enum only"));
    };
    let mut all = vec![];
    for variant in &data.variants {
        let attributes = Attributes::read(&variant.attrs)?;
        let name = attributes.name.clone().unwrap_or_else(|| snake(&variant.ident));
        if name.is_empty() || name.len() > 36 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            return Err(Error::new(variant.span(), "a name is 1 to 36 of A-Z a-z 0-9 _ -"));
        }
        all.push((variant, attributes, name));
    }
    Ok(all)
}

/// A field, its attributes, and its name in JSON.
struct Named<'a> {
    ident: &'a Ident,
    ty: &'a Type,
    attributes: Attributes,
    name: String,
}

fn fields(fields: &Fields) -> syn::Result<Vec<Named<'_>>> {
    let named = match fields {
        Fields::Named(named) => named.named.iter(),
        Fields::Unit => return Ok(vec![]),
        Fields::Unnamed(_) => return Err(Error::new(fields.span(), "fields must have names")),
    };
    let read = |field: &'_ Field| -> syn::Result<(Attributes, String)> {
        let attributes = Attributes::read(&field.attrs)?;
        let ident = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = attributes.name.clone().unwrap_or_else(|| ident.trim_start_matches("r#").to_owned());
        if name.contains(['"', '\\']) {
            return Err(Error::new(field.span(), "a name without quotation marks and backslashes is needed"));
        }
        Ok((attributes, name))
    };
    let mut all = vec![];
    for field in named {
        let (attributes, name) = read(field)?;
        if let Some(ident) = &field.ident {
            all.push(Named { ident, ty: &field.ty, attributes, name });
        }
    }
    Ok(all)
}

/// `SetLevel` is `set_level`.
fn snake(ident: &Ident) -> String {
    let mut name = String::new();
    for c in ident.to_string().trim_start_matches("r#").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// The type inside an `Option`.
fn optional(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    if last.ident != "Option" {
        return None;
    }
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        syn::GenericArgument::Type(inner) => Some(inner),
        _ => None,
    }
}

/// Whether the value of a field, as `value`, a reference, lies in its range.
fn in_range(field: &Named<'_>) -> Tokens {
    let ty = optional(field.ty).unwrap_or(field.ty);
    let bound = |bound: &Option<syn::Expr>| match bound {
        Some(bound) => quote!(::core::option::Option::<#ty>::Some(#bound)),
        None => quote!(::core::option::Option::<#ty>::None),
    };
    if field.attributes.min.is_none() && field.attributes.max.is_none() {
        return quote!(true);
    }
    let (min, max) = (bound(&field.attributes.min), bound(&field.attributes.max));
    let within = quote!(::parlor_device::field::within(value, #min, #max));
    if optional(field.ty).is_some() { quote!(value.as_ref().is_none_or(|value| #within)) } else { within }
}

/// A text made of pieces when the firmware is compiled.
fn joined(pieces: &[Tokens]) -> Tokens {
    quote!({
        const PARTS: &[&str] = &[#(#pieces),*];
        const BYTES: [u8; ::parlor_device::field::joined_len(PARTS)] = ::parlor_device::field::joined(PARTS);
        ::parlor_device::field::joined_text(&BYTES)
    })
}

/// Pieces of the JSON object that describes fields, without its braces.
fn described(fields: &[Named<'_>], pieces: &mut Vec<Tokens>) {
    for (at, field) in fields.iter().enumerate() {
        let before = format!("{}\"{}\":{{", if at > 0 { "," } else { "" }, field.name);
        let ty = field.ty;
        let behind = format!("{}}}", field.attributes.described());
        pieces.push(quote!(#before));
        pieces.push(quote!(<#ty as ::parlor_device::field::Field>::TYPE));
        pieces.push(quote!(#behind));
    }
}

fn commands_of(input: &DeriveInput) -> syn::Result<Tokens> {
    let ident = &input.ident;
    let mut arms = vec![];
    let mut pieces = vec![quote!("{")];
    for (at, (variant, _, name)) in variants(input)?.iter().enumerate() {
        let fields = fields(&variant.fields)?;
        let what = &variant.ident;
        let reads = fields.iter().map(|field| {
            let (ident, name, ty, range) = (field.ident, &field.name, field.ty, in_range(field));
            quote!(#ident: {
                let read: #ty = ::parlor_device::json::argument(args, #name)?;
                let value = &read;
                if !(#range) {
                    return ::core::result::Result::Err(::parlor_device::Reject::Argument(#name));
                }
                read
            })
        });
        arms.push(quote!(#name => ::core::result::Result::Ok(Self::#what { #(#reads),* }),));
        let comma = if at > 0 { "," } else { "" };
        if fields.is_empty() {
            let whole = format!("{comma}\"{name}\":{{}}");
            pieces.push(quote!(#whole));
        } else {
            let before = format!("{comma}\"{name}\":{{\"args\":{{");
            pieces.push(quote!(#before));
            described(&fields, &mut pieces);
            pieces.push(quote!("}}"));
        }
    }
    pieces.push(quote!("}"));
    let description = joined(&pieces);
    Ok(quote! {
        #[automatically_derived]
        #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
        impl ::parlor_device::Commands for #ident {
            const DESCRIPTION: &'static str = #description;
            fn parse(
                name: &str,
                args: ::parlor_device::json::Value<'_>,
            ) -> ::core::result::Result<Self, ::parlor_device::Reject> {
                let _ = args;
                match name {
                    #(#arms)*
                    _ => ::core::result::Result::Err(::parlor_device::Reject::Unknown),
                }
            }
        }
    })
}

fn state_of(input: &DeriveInput) -> syn::Result<Tokens> {
    let ident = &input.ident;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.span(), "State can be derived for a struct only"));
    };
    let fields = fields(&data.fields)?;
    let mut pieces = vec![quote!("{")];
    described(&fields, &mut pieces);
    pieces.push(quote!("}"));
    let description = joined(&pieces);
    let writes = fields.iter().map(|field| {
        let (ident, name) = (field.ident, &field.name);
        quote!(json.field(#name, &self.#ident);)
    });
    let merges = fields.iter().filter(|field| !field.attributes.read_only).map(|field| {
        let (ident, name, ty, range) = (field.ident, &field.name, field.ty, in_range(field));
        quote! {
            #name => if let ::core::option::Option::Some(read) =
                <#ty as ::parlor_device::json::FromJson>::from_json(value)
            {
                let value = &read;
                if #range && self.#ident != read {
                    self.#ident = read;
                    changed = true;
                }
            },
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl ::parlor_device::json::ToJson for #ident {
            fn to_json(&self, json: &mut ::parlor_device::json::Writer<'_>) {
                json.begin_object();
                #(#writes)*
                json.end_object();
            }
        }

        #[automatically_derived]
        #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
        impl ::parlor_device::State for #ident {
            const DESCRIPTION: &'static str = #description;
            fn merge(&mut self, desired: ::parlor_device::json::Value<'_>) -> bool {
                let mut changed = false;
                for (name, value) in desired.fields() {
                    match name {
                        #(#merges)*
                        _ => {}
                    }
                }
                changed
            }
        }
    })
}

fn event_of(input: &DeriveInput) -> syn::Result<Tokens> {
    let ident = &input.ident;
    let mut names = vec![];
    let mut writes = vec![];
    for (variant, _, name) in variants(input)? {
        let what = &variant.ident;
        names.push(quote!(Self::#what { .. } => #name,));
        let fields = fields(&variant.fields)?;
        let idents: Vec<&Ident> = fields.iter().map(|field| field.ident).collect();
        let each = fields.iter().map(|field| {
            let (ident, name) = (field.ident, &field.name);
            quote!(json.field(#name, #ident);)
        });
        writes.push(quote!(Self::#what { #(#idents),* } => { #(#each)* }));
    }
    Ok(quote! {
        #[automatically_derived]
        impl ::parlor_device::Event for #ident {
            fn name(&self) -> &'static str {
                match self { #(#names)* }
            }
        }

        #[automatically_derived]
        impl ::parlor_device::json::ToJson for #ident {
            fn to_json(&self, json: &mut ::parlor_device::json::Writer<'_>) {
                json.begin_object();
                json.field("event", ::parlor_device::Event::name(self));
                match self { #(#writes)* }
                json.end_object();
            }
        }
    })
}

fn choice_of(input: &DeriveInput) -> syn::Result<Tokens> {
    let ident = &input.ident;
    let mut reads = vec![];
    let mut writes = vec![];
    let mut names = vec![];
    for (variant, _, name) in variants(input)? {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new(variant.span(), "a choice has no fields"));
        }
        let what = &variant.ident;
        reads.push(quote!(#name => ::core::option::Option::Some(Self::#what),));
        writes.push(quote!(Self::#what => #name,));
        names.push(format!("\"{name}\""));
    }
    let described = format!("\"type\":\"enum\",\"of\":[{}]", names.join(","));
    Ok(quote! {
        #[automatically_derived]
        impl ::parlor_device::field::Field for #ident {
            const TYPE: &'static str = #described;
        }

        #[automatically_derived]
        impl ::parlor_device::json::FromJson for #ident {
            fn from_json(value: ::parlor_device::json::Value<'_>) -> ::core::option::Option<Self> {
                match value.text()?.as_plain()? {
                    #(#reads)*
                    _ => ::core::option::Option::None,
                }
            }
        }

        #[automatically_derived]
        impl ::parlor_device::json::ToJson for #ident {
            fn to_json(&self, json: &mut ::parlor_device::json::Writer<'_>) {
                json.string(match self { #(#writes)* });
            }
        }
    })
}
