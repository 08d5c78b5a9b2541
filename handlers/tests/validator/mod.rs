//! As much of JSON Schema as the schema of plans uses. A keyword that it does not know is an error, not ignored.

use serde_json::{Map, Value};

/// Whether `value` is valid by `schema`.
pub(crate) fn is_valid(schema: &Value, value: &Value) -> bool {
    valid(schema, schema, value)
}

fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    schema.as_object().unwrap().iter().all(|(keyword, says)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "default" => true,
        "$ref" => {
            let pointer = says.as_str().unwrap().strip_prefix('#').unwrap();
            valid(root, root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}")), value)
        }
        "anyOf" => says.as_array().unwrap().iter().any(|one| valid(root, one, value)),
        "enum" => says.as_array().unwrap().contains(value),
        "type" => match says {
            Value::Array(types) => types.iter().any(|one| is_of(one.as_str().unwrap(), value)),
            one => is_of(one.as_str().unwrap(), value),
        },
        "minimum" => value.as_f64().is_none_or(|number| number >= says.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= says.as_f64().unwrap()),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= size(says)),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= size(says)),
        "minItems" => value.as_array().is_none_or(|list| list.len() >= size(says)),
        "maxItems" => value.as_array().is_none_or(|list| list.len() <= size(says)),
        "minProperties" => value.as_object().is_none_or(|object| object.len() >= size(says)),
        "maxProperties" => value.as_object().is_none_or(|object| object.len() <= size(says)),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|item| valid(root, says, item))),
        "required" => value.as_object().is_none_or(|object| {
            says.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            object
                .iter()
                .all(|(name, inside)| says.get(name).is_none_or(|schema| valid(root, schema, inside)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let named = schema.get("properties").and_then(Value::as_object);
            object.iter().filter(|(name, _)| !is_named(named, name)).all(|(_, inside)| match says {
                Value::Bool(allowed) => *allowed,
                schema => valid(root, schema, inside),
            })
        }),
        "propertyNames" => value
            .as_object()
            .is_none_or(|object| object.keys().all(|name| valid(root, says, &Value::String(name.clone())))),
        "pattern" => value.as_str().is_none_or(|text| matches(says.as_str().unwrap(), text)),
        unknown => panic!("the keyword {unknown}"),
    })
}

fn is_named(named: Option<&Map<String, Value>>, name: &str) -> bool {
    named.is_some_and(|named| named.contains_key(name))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("the type {unknown}"),
    }
}

/// The four patterns that there are.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        "^[0-9]+(ms|s|m|h)$" => {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            unit.len() < text.len() && ["ms", "s", "m", "h"].contains(&unit)
        }
        "^ *([0-9A-Fa-f] *[0-9A-Fa-f] *)+$" => {
            let digits = text.replace(' ', "");
            !digits.is_empty()
                && digits.len().is_multiple_of(2)
                && digits.chars().all(|c| c.is_ascii_hexdigit())
        }
        "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" => !text.is_empty() && !text.chars().any(char::is_control),
        "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" => {
            !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+.^_`|~-".contains(c))
        }
        unknown => panic!("the pattern {unknown}"),
    }
}

fn size(says: &Value) -> usize {
    usize::try_from(says.as_u64().unwrap()).unwrap()
}
