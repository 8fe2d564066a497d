// What is pasted into the plan's box. It has one line, which a recipe in YAML doesn't survive.

export function isRecipe(text) {
  return /\b(?:slices|models|merge_method)["']?\s*:/.test(text);
}
