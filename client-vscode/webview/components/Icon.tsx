interface ButtonProps {
  icon: string;
  label: string;
  onClick: (event: MouseEvent) => void;
  class?: string;
  disabled?: boolean;
  expanded?: boolean;
}

export function Icon({ name }: { name: string }) {
  return <i class={`codicon codicon-${name}`} aria-hidden="true" />;
}

/** A button that is only an icon to see, and says what it does to everybody else. */
export function IconButton({ icon, label, onClick, disabled, expanded, ...rest }: ButtonProps) {
  return (
    <button
      type="button"
      class={`icon ${rest.class ?? ""}`}
      title={label}
      aria-label={label}
      aria-expanded={expanded}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
