/** Keys and values are bytes; text stands for its UTF-8 encoding. */
export const bytes = (input: string | Uint8Array): Uint8Array => typeof input === "string" ? Buffer.from(input) : input

/** One character for each byte: such texts compare and sort as the bytes do. */
export const toText = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1")

/** The end of the range of all keys that begin with `prefix`. */
export const prefixEnd = (prefix: Uint8Array): Uint8Array => {
  let length = prefix.length
  while (length > 0 && prefix[length - 1] === 0xff) length--
  if (length === 0) return endOfKeys
  // A Buffer's `slice` would share its memory.
  const end = Buffer.from(prefix.subarray(0, length))
  end[length - 1]! += 1
  return end
}

/** As the end of a range: up to the last of all keys. */
const endOfKeys = Uint8Array.of(0)

export const isEndOfKeys = (bytes: Uint8Array): boolean => bytes.length === 1 && bytes[0] === 0
