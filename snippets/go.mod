module meterprint.example/snippets

go 1.27

ignore ./node_modules
