package config

import (
	"encoding/json"
	"maps"
)

// Schema is a JSON schema of the file, for editors.
func Schema() []byte {
	root := schemaOf(keys())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Muster's configuration"
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("config: the table's schema is no JSON: " + err.Error())
	}
	return append(out, '\n')
}

func schemaOf(keys []key) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, k := range keys {
		properties[k.name] = k.schemaOf()
		if k.required {
			required = append(required, k.name)
		}
	}
	out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		out["required"] = required
	}
	return out
}

func (k key) schemaOf() map[string]any {
	var out map[string]any
	switch k.shape {
	case section:
		out = schemaOf(k.keys)
	case objects:
		out = map[string]any{"type": "array", "items": schemaOf(k.keys)}
	case list:
		out = map[string]any{"type": "array", "items": k.schema}
	case mapping:
		out = schemaOf(k.keys)
	case pairs:
		out = map[string]any{"type": "object", "additionalProperties": k.schema}
	case scalar:
		out = maps.Clone(k.schema)
	}
	out["description"] = k.doc + k.note()
	if k.def != "" && k.computed == "" {
		out["default"] = Setting{}.value(defaultNode(k.def))
	}
	return out
}
