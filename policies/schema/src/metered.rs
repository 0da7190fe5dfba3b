//! JSON values whose reading is counted: what a schema may cost for one document.
//!
//! Invariant: once the meter has run out every array and object looks empty, so that a validation under way ends soon; its
//! verdict is then worth nothing and must be dropped. An error carries whether the meter had run out, never a value.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::ControlFlow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object, cmp, unique};
use serde_json::{Map, Number, Value};

/// Bytes of a string that cost one step.
const BYTES_PER_STEP: usize = 64;

/// Steps and errors that are left.
pub(crate) struct Meter {
    steps: Cell<usize>,
    errors: Cell<usize>,
}

impl Meter {
    pub(crate) fn new(steps: usize, errors: usize) -> Self {
        Self { steps: Cell::new(steps), errors: Cell::new(errors) }
    }

    pub(crate) fn has_run_out(&self) -> bool {
        self.steps.get() == 0
    }

    fn spend(&self, steps: usize) {
        self.steps.set(self.steps.get().saturating_sub(steps));
    }

    /// What an error reports in the place of the instance: whether it may be believed.
    fn count_error(&self) -> Value {
        let is_sound = !self.has_run_out();
        self.errors.set(self.errors.get().saturating_sub(1));
        if self.errors.get() == 0 {
            self.steps.set(0);
        }
        Value::Bool(is_sound)
    }
}

/// Whether an error was found before the meter ran out.
pub(crate) fn is_sound(marker: &Value) -> bool {
    *marker == Value::Bool(true)
}

/// The representation: a value and the meter of the validation that reads it.
pub(crate) struct Metered;

#[derive(Clone, Copy)]
pub(crate) struct MeteredNode<'a> {
    value: &'a Value,
    meter: &'a Meter,
}

impl<'a> MeteredNode<'a> {
    pub(crate) fn new(value: &'a Value, meter: &'a Meter) -> Self {
        Self { value, meter }
    }
}

/// A name that is validated as a string, with a meter that does not run out.
pub(crate) struct NameBuffer {
    name: Value,
    meter: Meter,
}

impl Default for NameBuffer {
    fn default() -> Self {
        Self { name: Value::Null, meter: Meter::new(usize::MAX, usize::MAX) }
    }
}

impl Json for Metered {
    type Node<'a> = MeteredNode<'a>;
    type PreparedKey = String;
    type StringBuffer = NameBuffer;

    // As for `serde_json` itself, whose map is a tree.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut NameBuffer, string: &str, f: impl FnOnce(MeteredNode<'_>) -> T) -> T {
        buffer.name = Value::String(string.to_owned());
        f(MeteredNode::new(&buffer.name, &buffer.meter))
    }
}

pub(crate) struct MeteredNumber<'a>(&'a Number);

impl JsonNumber for MeteredNumber<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.as_u64()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.as_i64()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.as_f64()
    }

    fn as_str(&self) -> Cow<'_, str> {
        JsonNumber::as_str(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Borrowed(self.0)
    }

    fn is_written_as_integer(&self) -> bool {
        self.0.is_written_as_integer()
    }
}

impl<'a> Node<'a, Metered> for MeteredNode<'a> {
    type Object = MeteredObject<'a>;
    type Array = MeteredArray<'a>;
    type Number = MeteredNumber<'a>;

    fn as_object(&self) -> Option<MeteredObject<'a>> {
        self.meter.spend(1);
        self.value.as_object().map(|members| MeteredObject { members, meter: self.meter })
    }

    fn as_array(&self) -> Option<MeteredArray<'a>> {
        self.meter.spend(1);
        self.value.as_array().map(|items| MeteredArray { items, meter: self.meter })
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let string = self.value.as_str();
        self.meter.spend(1 + string.map_or(0, str::len) / BYTES_PER_STEP);
        string.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<MeteredNumber<'a>> {
        self.meter.spend(1);
        self.value.as_number().map(MeteredNumber)
    }

    fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn is_number(&self) -> bool {
        self.value.is_number()
    }

    fn is_string(&self) -> bool {
        self.value.is_string()
    }

    fn json_type(&self) -> JsonType {
        self.meter.spend(1);
        match self.value {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        self.meter.spend(1);
        cmp::equal(self.value, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(self.meter.count_error())
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::new(std::ptr::from_ref(self.value).addr()))
    }
}

pub(crate) struct MeteredObject<'a> {
    members: &'a Map<String, Value>,
    meter: &'a Meter,
}

impl<'a> Object<'a, Metered> for MeteredObject<'a> {
    type Node = MeteredNode<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.members.len()
    }

    fn get(&self, key: &String) -> Option<MeteredNode<'a>> {
        self.meter.spend(1);
        let value = self.members.get(key).filter(|_| !self.meter.has_run_out())?;
        Some(MeteredNode::new(value, self.meter))
    }

    fn members(&self) -> Members<'a> {
        Members { members: self.members.iter(), meter: self.meter }
    }

    fn try_for_each_name_node<B>(
        &self,
        buffer: &mut NameBuffer,
        mut f: impl FnMut(MeteredNode<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (name, _) in self.members() {
            buffer.name = Value::String(name.to_owned());
            f(MeteredNode::new(&buffer.name, self.meter))?;
        }
        ControlFlow::Continue(())
    }
}

pub(crate) struct Members<'a> {
    members: serde_json::map::Iter<'a>,
    meter: &'a Meter,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, MeteredNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.meter.spend(1);
        let (name, value) = self.members.next().filter(|_| !self.meter.has_run_out())?;
        Some((name, MeteredNode::new(value, self.meter)))
    }
}

pub(crate) struct MeteredArray<'a> {
    items: &'a [Value],
    meter: &'a Meter,
}

impl<'a> Array<'a, Metered> for MeteredArray<'a> {
    type Node = MeteredNode<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn elements(&self) -> Elements<'a> {
        Elements { items: self.items.iter(), meter: self.meter }
    }

    fn is_unique(&self) -> bool {
        self.meter.spend(self.items.len());
        self.meter.has_run_out() || unique::is_unique(self.items)
    }
}

pub(crate) struct Elements<'a> {
    items: std::slice::Iter<'a, Value>,
    meter: &'a Meter,
}

impl<'a> Iterator for Elements<'a> {
    type Item = MeteredNode<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.meter.spend(1);
        let value = self.items.next().filter(|_| !self.meter.has_run_out())?;
        Some(MeteredNode::new(value, self.meter))
    }
}
