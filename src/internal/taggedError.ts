import * as Schema from "effect/Schema"

/**
 * `Schema.TaggedError` with two additions: an error's `name`, which `String`, loggers and tracers show, is its tag; and
 * `JSON.stringify` writes the schema's JSON form and the message, where it would fail on a bigint by itself.
 */
export const TaggedError: typeof Schema.TaggedError = (identifier) => (tag: string, fields: any) => {
  const Tagged: any = Schema.TaggedError<any>(identifier)(tag, fields)
  Object.assign(Tagged.prototype, {
    name: tag,
    toJSON(this: Error) {
      const encode = Schema.encodeUnknownSync(Schema.toCodecJson(this.constructor as unknown as Schema.Codec<Error>))
      return { message: this.message, ...encode(this) as object }
    }
  })
  return Tagged
}
