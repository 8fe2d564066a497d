// Keeps to the newest of the values that Python sends. Each carries the session's `revision`, and
// answers of two events may overtake one another.

// Whether `value` is older than `newest`.
export function isLate(value, newest) {
  return Boolean(value && newest && value.revision < newest.revision);
}

// Calls `draw` with each value that is not late. A late one is replaced by the newest, for those
// who read it from Gradio.
export function watchNewest({ props, watch }, draw) {
  let newest = null;

  function arrived() {
    const { value } = props;
    if (isLate(value, newest)) {
      props.value = newest;
      return;
    }
    if (value?.revision !== undefined) newest = value;
    draw(value);
  }

  watch('value', arrived);
  arrived();
}
