// Recognises a pasted recipe: the plan's box has one line, so YAML would lose its line breaks there.

export function isRecipe(text) {
  return /\b(?:slices|models|merge_method)["']?\s*:/.test(text);
}
