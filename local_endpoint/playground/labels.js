// Fields -> the words and the section of the form in which people find them.

const LABELS = {
  num_images: "Pictures",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  true_cfg_scale: "True CFG",
  image_guidance_scale: "Image guidance",
  max_sequence_length: "Prompt tokens",
  images: "Reference pictures",
  layers: "Layers",
  image: "Picture",
  mask: "Mask",
  mask_blur: "Mask blur",
  inpainting_mask_invert: "Invert mask",
  loras: "LoRAs",
  lora_scale: "Default scale",
  clip_skip: "CLIP skip",
  controlnet: "ControlNets",
  ip_adapter: "Reference picture (IP-Adapter)",
  hires: "Second pass, enlarged",
  output_format: "Format",
  high_noise_frac: "Takes over at",
  preview: "Watch it being drawn",
  safety_checker: "Insist on the safety checker",
};

// Section -> its fields; what stands nowhere goes into "More".
export const SECTIONS = {
  Prompt: ["prompt", "negative_prompt"],
  "Start from a picture": ["image", "mask", "strength", "mask_blur", "inpainting_mask_invert", "outpaint"],
  Size: ["width", "height", "num_images"],
  Sampling: ["num_inference_steps", "guidance_scale", "scheduler", "seed"],
  References: ["images", "ip_adapter"],
  LoRA: ["loras", "lora_scale"],
  ControlNet: ["controlnet"],
  More: [],
  Output: ["preview", "output_format", "quality", "delivery", "safety_checker"],
};
export const NEEDS_IMAGE = ["mask", "strength", "mask_blur", "inpainting_mask_invert", "outpaint"];
export const NEEDS_MASK = ["mask_blur", "inpainting_mask_invert"];
// Which are asked in another way: a picture is replayed by dropping it, capabilities by connecting.
export const NOT_SHOWN = ["replay", "capabilities"];

/** What people call a field. */
export function labelOf(name) {
  const words = name.replaceAll("_", " ");
  return Object.hasOwn(LABELS, name) ? LABELS[name] : words[0].toUpperCase() + words.slice(1);
}

/** The section that a field stands in. */
export function sectionOf(name) {
  return Object.keys(SECTIONS).find((section) => SECTIONS[section].includes(name)) ?? "More";
}
