// One accent ("ink") for actions; colour otherwise means state (see app.css). System fonts: nothing is loaded.
import {
  Anchor,
  Badge,
  Button,
  Card,
  createTheme,
  defaultVariantColorsResolver,
  Modal,
  NumberInput,
  PasswordInput,
  Select,
  TagsInput,
  Textarea,
  TextInput,
  Tooltip,
  type CSSVariablesResolver,
  type MantineColorsTuple,
} from "@mantine/core";

const ink: MantineColorsTuple = [
  "#eef2f6",
  "#dde4eb",
  "#c2ccd6",
  "#a3b1bf",
  "#8496a8",
  "#667a8d",
  "#4d6072",
  "#374859",
  "#253442",
  "#1a2733",
];
const night: MantineColorsTuple = [
  "#dbe2e9",
  "#b4bfca",
  "#8d9aa7",
  "#5e6c79",
  "#3a4652",
  "#2a343e",
  "#1e262e",
  "#171d24",
  "#11161b",
  "#0b0f13",
];

export const theme = createTheme({
  colors: { ink, dark: night },
  primaryColor: "ink",
  primaryShade: { light: 8, dark: 1 },
  // What is written on the accent has to follow the scheme: dark ink gets white text, light ink dark text.
  variantColorResolver: (input) => {
    const resolved = defaultVariantColorsResolver(input);
    const isAccent = input.variant === "filled" && (input.color ?? input.theme.primaryColor) === "ink";
    return isAccent ? { ...resolved, color: "var(--on-accent)", hoverColor: "var(--on-accent)" } : resolved;
  },
  defaultRadius: "sm",
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace',
  fontSizes: { xs: "0.75rem", sm: "0.8125rem", md: "0.875rem", lg: "1rem", xl: "1.125rem" },
  headings: {
    fontWeight: "600",
    sizes: { h1: { fontSize: "1.25rem" }, h2: { fontSize: "1rem" }, h3: { fontSize: "0.875rem" } },
  },
  cursorType: "pointer",
  components: {
    Button: Button.extend({ defaultProps: { size: "xs" } }),
    TextInput: TextInput.extend({ defaultProps: { size: "sm" } }),
    PasswordInput: PasswordInput.extend({ defaultProps: { size: "sm" } }),
    NumberInput: NumberInput.extend({ defaultProps: { size: "sm" } }),
    Textarea: Textarea.extend({ defaultProps: { size: "sm" } }),
    TagsInput: TagsInput.extend({ defaultProps: { size: "sm" } }),
    Select: Select.extend({ defaultProps: { size: "sm", allowDeselect: false } }),
    Modal: Modal.extend({
      defaultProps: {
        centered: true,
        closeButtonProps: { "aria-label": "Close" },
        overlayProps: { backgroundOpacity: 0.4 },
        transitionProps: { duration: 100 },
      },
    }),
    Badge: Badge.extend({ defaultProps: { variant: "default", radius: "sm", tt: "none", fw: 500 } }),
    Card: Card.extend({ defaultProps: { withBorder: true, shadow: "none", padding: "sm" } }),
    Anchor: Anchor.extend({ defaultProps: { underline: "always" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, withArrow: false } }),
  },
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-placeholder": "#66737f",
    "--on-accent": "#ffffff",
    "--mantine-primary-color-contrast": "#ffffff",
    "--mantine-color-body": "#ffffff",
    "--mantine-color-dimmed": "#5d6b78",
    "--mantine-color-anchor": "#1a2733",
    "--mantine-color-error": "#b3261e",
  },
  dark: {
    "--mantine-color-placeholder": "#8592a0",
    "--on-accent": "#11161b",
    "--mantine-primary-color-contrast": "#11161b",
    "--mantine-color-body": "#11161b",
    "--mantine-color-dimmed": "#93a1ae",
    "--mantine-color-anchor": "#dbe2e9",
    "--mantine-color-error": "#f28b82",
  },
});
