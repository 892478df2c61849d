import type { PlatformError } from "effect/PlatformError"

/** Says why a file cannot be read, in the words of the system. */
export const unreadable = ({ reason }: PlatformError): string => {
  if (reason._tag === "NotFound") return "there is no such file"
  // "EISDIR: illegal operation on a directory, read"
  return /^\w+: ([^,]+)/.exec(reason.cause instanceof Error ? reason.cause.message : "")?.[1] ?? reason._tag
}
